"""``mks-hardening sign-in``: help on the command line, by the application's own sign-in."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mks_hardening.cli import main
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import SignIn
from sign_in_scenario import ELSEWHERE, RIGHT, Scenario

WHO = ["--actor", "ito", "--reason", "asked by telephone"]


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """An application ``shop`` with a sign-in under several names."""
    scenario = Scenario()
    shop: Any = ModuleType("shop")
    shop.closed = []

    @contextmanager
    def opened() -> Generator[SignIn]:
        yield scenario.sign_in
        shop.closed.append(True)

    shop.door, shop.make, shop.opened = scenario.sign_in, lambda: scenario.sign_in, opened
    shop.parts, shop.wrong = scenario, int
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "shop", shop)
    return scenario


@pytest.mark.parametrize("target", ["shop:door", "shop:make", "shop:opened", "shop:parts.sign_in"])
def test_an_operator_unlocks(scenario: Scenario, capsys: pytest.CaptureFixture[str], target: str) -> None:
    session = scenario.signed_in("sato")
    scenario.locked("sato")
    arguments = ["sign-in", "--target", target, "unlock", "2", *WHO]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "2  unlocked\n"
    assert (scenario.notices[-1].actor, scenario.notices[-1].reason) == ("ito", "asked by telephone")
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)
    assert session.user_id == "2"
    assert main([*arguments, "--end-sessions"]) == 1
    assert capsys.readouterr().out == "2  was not locked\n"
    assert session.user_id is None
    assert sys.modules["shop"].closed == [True] * 2 * (target == "shop:opened")


def test_an_operator_takes_the_factor_off(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    session = scenario.signed_in("tanaka")
    arguments = ["sign-in", "--target", "shop:door", "reset", "1", *WHO]
    assert [main(arguments), main(arguments)] == [0, 1]
    assert capsys.readouterr().out == "1  second factor removed\n1  had no second factor\n"
    assert session.user_id is None


@pytest.mark.parametrize(
    "target", ["shop", "shop:", ":door", "shop:nothing", "nowhere:door", "shop:wrong", "shop:parts"]
)
def test_a_target_that_is_none(scenario: Scenario, capsys: pytest.CaptureFixture[str], target: str) -> None:
    assert main(["sign-in", "--target", target, "unlock", "2", *WHO]) == 2
    assert target in capsys.readouterr().err or ":" not in target.strip(":")


@pytest.mark.parametrize("where", ["at its import", "when it is called"])
def test_a_target_that_raises_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, where: str
) -> None:
    raises = "raise RuntimeError('password=hunter2hunter2')"
    function = f"def door():\n    {raises}\n"
    name = f"raising_{where.replace(' ', '_')}"
    (tmp_path / f"{name}.py").write_text(f"{raises}\n" if where == "at its import" else function)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["sign-in", "--target", f"{name}:door", "unlock", "2", *WHO]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{name}:door raises RuntimeError: password=")
    assert "hunter2" not in said


@pytest.mark.parametrize("left_out", [0, 2])
def test_nobody_helps_anonymously(scenario: Scenario, left_out: int) -> None:
    who = WHO[:left_out] + WHO[left_out + 2 :]
    with pytest.raises(SystemExit) as caught:
        main(["sign-in", "--target", "shop:door", "reset", "1", *who])
    assert caught.value.code == 2


def test_a_server_that_is_away_is_named(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise BackendUnavailableError("redis", "refused")

    monkeypatch.setattr(scenario.store, "load", away)
    assert main(["sign-in", "--target", "shop:door", "unlock", "2", *WHO]) == 3
    assert "redis is unavailable (refused)" in capsys.readouterr().err
