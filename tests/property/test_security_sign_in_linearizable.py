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
    assert {
        ("sign_in", "pwd"),
        ("sign_in", "mfa"),
        ("alive", True),
        ("reset", True),
        ("change", True),
    } <= names
    assert {("disable", True), ("admin_reset", True), ("sign_in", "")} <= names


def test_the_model_knows_a_session_that_survived_a_reset() -> None:
    signed_in = Operation("1", ("sign_in", FIRST, "s"), "pwd", 1.0, 4.0)
    reset = Operation("1", ("reset", "another"), True, 2.0, 3.0)
    assert explained([signed_in, reset], Model())
    assert not explained([signed_in, reset, Operation("1", ("alive", "s"), True, 5.0, 6.0)], Model())
