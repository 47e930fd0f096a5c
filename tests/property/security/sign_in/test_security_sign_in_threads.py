"""No session outlives the credentials it was begun with, however the threads fall (ASVS 5.0, 7.4.3)."""

from __future__ import annotations

import time

from linearizability import Operation, explained, unexplained_keys
from sign_in_history import FIRST, Model, Tools, race


def test_threads_over_stores_in_memory() -> None:
    tools = Tools.in_memory()
    users = [f"user-{number}" for number in range(50)]
    tools.invite(users)
    rows = race(tools, users, slot=0.06, threads=4, seed=1, begin=time.monotonic())
    assert unexplained_keys(rows, Model()) == []
    names = {(row.call[0], row.answer) for row in rows}
    assert {("sign_in", "pwd"), ("sign_in", "mfa"), ("sign_in", ""), ("alive", True)} <= names
    changes = {row.call[2] for row in rows if row.call[0] == "set"}
    assert changes == {"reset", "change", "disable", "enable", "enrol", "admin_reset"}


def test_the_model_knows_a_session_that_survived_a_reset() -> None:
    history = [
        Operation("1", ("sign_in", FIRST, "s"), "pwd", 1.0, 4.0),
        Operation("1", ("set", "1", "reset", "", "another"), True, 2.0, 3.0),
        Operation("1", ("end", "1", ""), True, 2.0, 3.0),
    ]
    assert explained(history, Model())
    assert not explained([*history, Operation("1", ("alive", "s"), True, 5.0, 6.0)], Model())
