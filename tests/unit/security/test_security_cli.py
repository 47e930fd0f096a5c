"""``mks-hardening second-factor`` and ``passwords``, on stores and files of their own."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from mks_hardening.cli import main
from mks_hardening.cli._progress import Progress
from mks_hardening.db import hardened_engine
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    BreachedPasswords,
    RedisTwoFactorStore,
    SecretBox,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
    totp_code,
)

OLD, NEW = SecretBox.generate_key(), SecretBox.generate_key()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'factors.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("MKS_SECRET_KEYS", f"{NEW},{OLD}")
    return url


def enrolled(store: Any, users: int) -> list[str]:
    """The secrets of so many users under the old key."""
    manager = TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(OLD))
    secrets = []
    for number in range(users):
        secrets.append(manager.begin_enrolment(f"u{number}", account_name="x").secret)
        manager.confirm_enrolment(f"u{number}", totp_code(secrets[-1]))
    return secrets


def readable_with_the_new_key(store: Any, users: int) -> bool:
    manager = TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(NEW))
    return all(manager.verify(f"u{number}", "000000").reason == "wrong" for number in range(users))


def test_every_record_is_brought_under_the_first_key(url: str, run: Run) -> None:
    engine = hardened_engine(url)
    store = SQLAlchemyTwoFactorStore(engine)
    store.create_table()
    enrolled(store, 25)
    code, out, err = run("second-factor", "re-encrypt", "--batch", "10")
    assert (code, out) == (0, "examined: 25  re-encrypted: 25  unreadable: 0\n")
    assert err == "0 of 25 records\n10 of 25 records\n20 of 25 records\n25 of 25 records\n"
    assert readable_with_the_new_key(store, 25)
    assert run("second-factor", "re-encrypt")[:2] == (0, "examined: 25  re-encrypted: 0  unreadable: 0\n")
    assert NEW not in out + err
    engine.dispose()


def test_what_cannot_be_read_is_counted_and_told(url: str, run: Run) -> None:
    engine = hardened_engine(url)
    store = SQLAlchemyTwoFactorStore(engine, table="factors")
    store.create_table()
    enrolled(store, 2)
    store.replace("damaged", b"{", expected=None, version="1")
    code, out, _ = run("second-factor", "re-encrypt", "--table", "factors")
    assert (code, out) == (1, "examined: 3  re-encrypted: 2  unreadable: 1\n")
    engine.dispose()


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), BackendUnavailableError("database", "timeout")])
def test_a_run_that_stops_says_where_to_go_on(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    engine = hardened_engine(url)
    store = SQLAlchemyTwoFactorStore(engine)
    store.create_table()
    enrolled(store, 6)
    batches = []
    original = TwoFactorManager.reencrypt

    def stopping(self: Any, **options: Any) -> Any:
        batches.append(options)
        if len(batches) == 2:
            raise fault
        return original(self, **options)

    monkeypatch.setattr(TwoFactorManager, "reencrypt", stopping)
    code, out, err = run("second-factor", "re-encrypt", "--batch", "4")
    assert (code, out) == (1 if isinstance(fault, KeyboardInterrupt) else 3, "")
    assert err.endswith("after 4 records; continue with --cursor 'u3'\n")
    code, out, _ = run("second-factor", "re-encrypt", "--cursor", "u3")
    assert (code, out) == (0, "examined: 2  re-encrypted: 2  unreadable: 0\n")
    assert readable_with_the_new_key(store, 6)
    engine.dispose()


@pytest.mark.redis
def test_records_in_redis(redis_url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKS_REDIS_URL", redis_url)
    monkeypatch.setenv("MKS_SECRET_KEYS", f"{NEW},{OLD}")
    with RedisTwoFactorStore(redis_url, namespace="app", store_budget=5) as store:
        enrolled(store, 5)
        assert store.count() == 5
        code, out, _ = run("second-factor", "re-encrypt", "--store", "redis", "--namespace", "app")
        assert (code, out) == (0, "examined: 5  re-encrypted: 5  unreadable: 0\n")
        assert readable_with_the_new_key(store, 5)


@pytest.mark.parametrize(
    ("variables", "arguments", "clue"),
    [
        ({}, [], "MKS_SECRET_KEYS"),
        ({"MKS_SECRET_KEYS": NEW}, [], "DATABASE_URL"),
        ({"MKS_SECRET_KEYS": NEW}, ["--store", "redis"], "MKS_REDIS_URL"),
        ({"MKS_SECRET_KEYS": NEW}, ["--batch", "0"], "--batch"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, run: Run, variables: dict[str, str], arguments: list[str], clue: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("second-factor", "re-encrypt", *arguments)
    assert (code, out) == (2, "")
    assert clue in err
    assert NEW not in err


def test_a_database_without_the_table_is_told(url: str, run: Run) -> None:
    made = create_engine(url)
    made.connect().close()
    made.dispose()
    code, _, err = run("second-factor", "re-encrypt")
    assert code == 2
    assert err.startswith("there is no table mks_two_factor; ")


# --- passwords -----------------------------------------------------------------------------------


def test_a_filter_is_built(tmp_path: Path, run: Run) -> None:
    digests = sorted(hashlib.sha1(f"p{n}".encode()).hexdigest() for n in range(100))  # noqa: S324 - the format
    (tmp_path / "source").write_text("".join(f"{digest}:{n}\n" for n, digest in enumerate(digests)))
    target = tmp_path / "target"
    code, out, err = run(
        "passwords", "build-filter", str(tmp_path / "source"), str(target), "--min-count", "50"
    )
    assert (code, out) == (0, "passwords: 50  bytes: 316\n")
    assert err.splitlines()[-1].endswith(" bytes")
    with BreachedPasswords(target) as breached:
        assert sum(breached(f"p{n}") for n in range(100)) == 50


def test_a_target_that_is_no_file_is_left_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "source").write_text("password\n")
    os.mkfifo(tmp_path / "target")
    code, _, err = run(
        "passwords", "build-filter", str(tmp_path / "source"), str(tmp_path / "target"), "--kind", "passwords"
    )
    assert (code, err) == (2, f"{tmp_path / 'target'} is not a file\n")
    assert (tmp_path / "target").is_fifo()


def test_a_source_that_cannot_be_used_is_named(tmp_path: Path, run: Run) -> None:
    code, out, err = run("passwords", "build-filter", str(tmp_path / "none"), str(tmp_path / "target"))
    assert (code, out) == (2, "")
    assert "none" in err
    (tmp_path / "plain").write_text("password\n")
    code, _, err = run("passwords", "build-filter", str(tmp_path / "plain"), str(tmp_path / "target"))
    assert code == 2
    assert "line 1" in err
    plain = ("passwords", "build-filter", str(tmp_path / "plain"), str(tmp_path / "target"))
    assert run(*plain, "--kind", "passwords")[0] == 0


# --- the bar -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_on_a_terminal() -> None:
    terminal = Terminal()
    progress = Progress(2000, unit="records", stream=terminal)
    for done in (0, 5, 6, 1000, 2000):
        progress.show(done)
    progress.end()
    shown = terminal.getvalue().split("\r")[1:]
    assert shown == [
        "[..............................]   0%  0 of 2,000 records\x1b[K",
        "[###############...............]  50%  1,000 of 2,000 records\x1b[K",
        "[##############################] 100%  2,000 of 2,000 records\x1b[K\n",
    ]


def test_without_a_total_it_counts() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        progress = Progress(0, unit="records", stream=stream)
        progress.show(0)
        progress.show(100)
        progress.end()
    assert terminal.getvalue() == "\r0 records\x1b[K\r100 records\x1b[K\n"
    assert file.getvalue() == "0 records\n100 records\n"


def test_more_than_was_expected_is_no_more_than_all() -> None:
    terminal = Terminal()
    Progress(10, unit="records", stream=terminal).show(25)
    assert "100%  25 of 10" in terminal.getvalue()
