"""Security events as log records: who, from where, and nothing that is secret."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from mks_hardening._core import hooks
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging import JsonFormatter
from sign_in_scenario import HERE, RIGHT, Scenario


def fields_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Level, event and further fields of each record, as the JSON formatter writes them."""
    found = []
    for record in caplog.records:
        if record.name == "mks_hardening.security":
            line = json.loads(JsonFormatter().format(record))
            standard = {"timestamp", "level", "logger", "message", "security_event"}
            rest = {name: value for name, value in line.items() if name not in standard}
            found.append((line["level"], line["security_event"], rest))
    return found


@pytest.fixture
def scenario(caplog: pytest.LogCaptureFixture) -> Scenario:
    """Somebody's sign-in, logged though nobody observes."""
    caplog.set_level(logging.INFO, "mks_hardening.security")
    made = Scenario()
    caplog.clear()
    assert hooks.observers == []
    return made


def test_refusals_name_the_account_and_not_what_was_typed(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.sign_in.password("tanaka", "hunter2", client=HERE)
    scenario.sign_in.password("s3cret-typed-as-name", "hunter2", client=HERE)
    challenge = scenario.challenge()
    scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE)
    here = {"client_key": "192.0.2.1"}
    assert fields_of(caplog) == [
        (
            "WARNING",
            "sign_in.refused",
            {"user_id": "1", **here, "reason": "wrong", "auth_method": "password"},
        ),
        ("WARNING", "sign_in.refused", {**here, "reason": "unknown", "auth_method": "password"}),
        ("INFO", "sign_in.challenged", {"user_id": "1", **here, "auth_method": "password"}),
        ("WARNING", "second_factor.refused", {"user_id": "1", "reason": "wrong", "auth_method": "totp"}),
        (
            "WARNING",
            "sign_in.factor_refused",
            {"user_id": "1", **here, "reason": "wrong", "auth_method": "totp"},
        ),
    ]
    assert "hunter2" not in caplog.text
    assert "s3cret" not in caplog.text
    assert challenge not in caplog.text


def test_locks_are_warnings(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    scenario.locked()
    assert ("WARNING", "sign_in.locked", {"user_id": "1", "client_key": "203.0.49.9"}) in fields_of(caplog)


def test_a_factor_that_goes_on_and_off_and_an_administrator_who_helps(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    enrolment = scenario.factors.begin_enrolment("2", account_name="sato")
    scenario.secret = enrolment.secret
    codes = scenario.factors.confirm_enrolment("2", scenario.code())
    scenario.factors.disable("2", proof=next(iter(codes)))
    scenario.sign_in.unlock("2", actor="ito", reason="called")
    scenario.sign_in.admin_reset("1", actor="ito", reason="phone lost,\npassword=hunter2")
    found = fields_of(caplog)
    assert [name for _, name, _ in found] == [
        "second_factor.enrolment_begun",
        "second_factor.enrolled",
        "second_factor.disabled",
        "second_factor.unlocked",
        "sign_in.unlocked",
        "second_factor.reset",
        "sign_in.factor_reset",
    ]
    assert {level for level, _, _ in found} == {"INFO"}
    assert found[1][2] == {"user_id": "2"}
    assert found[4][2] == {"user_id": "2", "actor": "ito", "reason": "called"}
    assert found[6][2]["user_id"] == "1"
    assert enrolment.secret not in caplog.text
    # One record is one line, and what an administrator typed is redacted like any other text.
    plain = logging.Formatter("%(message)s").format(caplog.records[-1])
    assert "\n" not in plain
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_a_disabled_account_is_signed_out_and_recorded(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, on_a_loop: bool
) -> None:
    session = scenario.signed_in("sato")
    caplog.clear()
    scenario.people.change("2", disabled=True)
    act: dict[str, Any] = {"actor": "ito", "reason": "left the company"}
    if on_a_loop:
        asyncio.run(scenario.sign_in.asign_out_disabled("2", **act))
    else:
        scenario.sign_in.sign_out_disabled("2", **act)
    assert session.user_id is None
    assert fields_of(caplog) == [("INFO", "sign_in.disabled", {"user_id": "2", **act})]
    with pytest.raises(ConfigurationError, match="reason"):
        scenario.sign_in.sign_out_disabled("2", actor="ito", reason=" ")


def test_a_whole_sign_in_is_logged(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    scenario.signed_in()
    name = [name for _, name, _ in fields_of(caplog)]
    assert name == ["sign_in.challenged", "second_factor.verified", "sign_in.signed_in"]
    assert RIGHT not in caplog.text


def test_who_does_not_want_them_pays_for_none(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "mks_hardening.security")
    scenario.sign_in.password("tanaka", "hunter2", client=HERE)
    assert caplog.records == []
