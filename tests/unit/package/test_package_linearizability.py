"""The checker of histories: it finds what was planted, and agrees with trying every order."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linearizability import (
    UNKNOWN,
    CompareAndSet,
    HighestStep,
    Operation,
    SingleUse,
    explained,
    unexplained_keys,
)


def history(*rows: tuple[Any, Any, float, float]) -> list[Operation]:
    return [Operation("k", *row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "fine"),
    [
        ([], True),
        ([("use", True, 0, 1), ("use", False, 2, 3)], True),
        ([("use", False, 0, 5), ("use", True, 1, 2)], True),  # side by side, in the other order
        ([("use", True, 0, 1), ("use", True, 2, 3)], False),  # used twice
        ([("use", True, 0, 9), ("use", True, 1, 8)], False),  # also side by side
        ([("use", False, 0, 1)], False),  # refused, and nobody had used it
        ([("use", False, 0, 1), ("use", True, 2, 3)], False),  # refused before anybody used it
        ([("use", UNKNOWN, 0, 1), ("use", False, 2, 3)], True),  # it happened
        ([("use", UNKNOWN, 0, 1), ("use", True, 2, 3)], True),  # it did not
        ([("use", UNKNOWN, 5, 6), ("use", False, 2, 3)], False),  # it had not begun
        ([("use", UNKNOWN, 0, 1), ("use", True, 2, 3), ("use", False, 4, 5)], True),
        ([("use", UNKNOWN, 0, 1), ("use", True, 2, 3), ("use", True, 4, 5)], False),
    ],
)
def test_tokens(rows: Any, fine: bool) -> None:
    assert explained(history(*rows), SingleUse()) is fine


@pytest.mark.parametrize(
    ("rows", "fine"),
    [
        ([(5, True, 0, 1), (4, False, 2, 3), (6, True, 4, 5)], True),
        ([(5, True, 0, 1), (4, True, 2, 3)], False),  # an earlier step after a later one
        ([(5, True, 0, 9), (4, True, 1, 8)], True),  # the earlier one came first
        ([(5, True, 0, 1), (5, True, 2, 3)], False),
        ([(5, UNKNOWN, 0, 1), (4, False, 2, 3), (5, True, 4, 5)], False),
    ],
)
def test_steps(rows: Any, fine: bool) -> None:
    assert explained(history(*rows), HighestStep()) is fine


@pytest.mark.parametrize(
    ("rows", "fine"),
    [
        ([(("load",), [0, "{}"], 0, 1), (("set", 0, "a"), True, 2, 3), (("load",), [1, "a"], 4, 5)], True),
        ([(("set", 0, "a"), True, 0, 1), (("load",), [0, "{}"], 2, 3)], False),  # a read from the past
        ([(("set", 0, "a"), True, 0, 9), (("set", 0, "b"), True, 0, 9)], False),  # a lost update
        ([(("set", 0, "a"), False, 0, 1), (("load",), [1, "a"], 2, 3)], False),  # done, and told it was not
        ([(("set", 0, "a"), UNKNOWN, 0, 1), (("load",), [1, "a"], 2, 3)], True),
        ([(("set", 0, "a"), UNKNOWN, 0, 1), (("load",), [0, "{}"], 2, 3), (("load",), [1, "a"], 4, 5)], True),
    ],
)
def test_versions(rows: Any, fine: bool) -> None:
    assert explained(history(*rows), CompareAndSet()) is fine


def test_keys_are_looked_at_apart() -> None:
    operations = [Operation(key, "use", True, at, at + 1) for at, key in enumerate(["a", "b", "c", "b"])]
    assert unexplained_keys(operations, SingleUse()) == ["b"]


def explained_by_trying(operations: list[Operation], model: Any) -> bool:
    unknown = [one for one in operations if one.answer == UNKNOWN]
    known = [one for one in operations if one.answer != UNKNOWN]
    for number in range(len(unknown) + 1):
        for happened in combinations(unknown, number):
            for order in permutations([*known, *happened]):
                if all(
                    not (later.answer != UNKNOWN and later.ended < earlier.began)
                    for place, earlier in enumerate(order)
                    for later in order[place + 1 :]
                ):
                    state = model.start
                    for one in order:
                        answer, state = model.step(state, one.call)
                        if one.answer not in (UNKNOWN, answer):
                            break
                    else:
                        return True
    return False


answers = st.sampled_from([True, False, True, False, UNKNOWN])
sets = st.tuples(st.just("set"), st.integers(0, 2), st.sampled_from("ab"))
loads = st.tuples(st.just(("load",)), st.sampled_from([[0, "{}"], [1, "a"], [1, "b"], [2, "a"]]))


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        (SingleUse(), st.tuples(st.just("use"), answers)),
        (HighestStep(), st.tuples(st.integers(0, 3), answers)),
        (CompareAndSet(), st.one_of(st.tuples(sets, answers), loads)),
    ],
)
@given(data=st.data())
def test_it_agrees_with_trying_every_order(model: Any, calls: Any, data: Any) -> None:
    rows = data.draw(st.lists(st.tuples(calls, st.integers(0, 8), st.integers(1, 5)), max_size=5))
    operations = [Operation("k", *call, began, began + length) for call, began, length in rows]
    assert explained(operations, model) == explained_by_trying(operations, model)
