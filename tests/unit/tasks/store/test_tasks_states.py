"""The transition table says what it should, and nothing more."""

from __future__ import annotations

from typing import get_args

import pytest

from mks_hardening.tasks._back_off import retry_delay
from mks_hardening.tasks._states import ENDS, TRANSITIONS, State, Step, sources

STATES = get_args(State)
STEPS = get_args(Step)


def after(state: State, step: Step) -> State | None:
    return TRANSITIONS.get((state, step))


def test_every_state_is_reached_and_every_step_is_possible_somewhere() -> None:
    assert {"waiting", *TRANSITIONS.values()} == set(STATES)
    assert {step for _, step in TRANSITIONS} == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_what_is_done_stays_done(step: Step) -> None:
    assert after("done", step) is None


@pytest.mark.parametrize("state", sorted(ENDS))
def test_only_a_person_or_the_same_key_brings_an_end_back(state: State) -> None:
    possible = {step for step in STEPS if after(state, step)}
    assert possible <= ({"replay", "enqueue"} if state == "dead" else {"replay"})


@pytest.mark.parametrize("step", STEPS)
def test_sources_are_the_left_side_of_the_table(step: Step) -> None:
    assert set(sources(step)) == {state for state in STATES if after(state, step)}


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 2.0), (2, 4.0), (5, 32.0), (9, 512.0), (10, 600.0), (10_000, 600.0)]
)
def test_waits_double_up_to_ten_minutes_with_full_jitter(attempt: int, longest: float) -> None:
    assert retry_delay(attempt, draw=lambda: 1.0) == longest
    assert retry_delay(attempt, draw=lambda: 0.0) == 0.0
    assert 0.0 <= retry_delay(attempt) <= longest
