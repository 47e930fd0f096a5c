"""Any order of steps by several workers, on both databases, against a model of the transition table."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Tasks
from mks_hardening.tasks._states import ENDS, TRANSITIONS
from mks_hardening.tasks.store._task_rows import LeasedTask
from mks_hardening.testing import FrozenClock

LEASE = 30.0


@dataclass
class Model:
    state: str = "waiting"
    due_at: float = 0.0
    owner: str | None = None
    deliveries: int = 0
    attempts: int = 0
    asked: bool = False
    finishes: int = field(default=0)


class Machine(RuleBasedStateMachine):
    """Steps of the store and of the model side by side."""

    url = ""
    ids = Bundle("ids")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock(1_000_000.0)
        self.engine = hardened_engine(self.url)
        self.tasks = Tasks(self.engine, clock=self.clock)
        self.tasks.store.table.drop(self.engine, checkfirst=True)
        self.tasks.create_table()
        self.task = self.tasks.task("t")(lambda run: None)
        self.models = dict[str, Model]()

    def teardown(self) -> None:
        self.engine.dispose()

    @initialize()
    def nothing(self) -> None:
        assert self.tasks.listed() == []

    @rule(target=ids, delay=st.sampled_from([0, 10]), key=st.sampled_from([None, "a", "b"]))
    def enqueue(self, delay: int, key: str | None) -> str:
        with self.tasks.begin() as connection:
            task_id = self.task.using(delay=delay, key=key).enqueue(connection)
        fresh = Model(due_at=self.clock.time() + delay)
        model = self.models.setdefault(task_id, fresh)
        if TRANSITIONS.get((model.state, "enqueue")):  # type: ignore[arg-type]  # a state
            self.models[task_id] = fresh
        return task_id

    @rule(seconds=st.sampled_from([1, 9, 31]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(target=leases)
    def claim(self) -> tuple[LeasedTask, ...]:
        owner = secrets.token_hex(16)
        taken = self.tasks.store.lease(owner=owner, lease=LEASE, queues=["default"], most=2)
        now = self.clock.time()
        possible = {
            task_id
            for task_id, model in self.models.items()
            if TRANSITIONS.get((model.state, "lease")) and model.due_at <= now  # type: ignore[arg-type]  # a state
        }
        assert {task.id for task in taken} <= possible
        assert len(taken) == min(2, len(possible))
        for task in taken:
            model = self.models[task.id]
            model.state, model.owner, model.due_at = "running", owner, now + LEASE
            model.deliveries += 1
            assert (task.deliveries, task.attempts) == (model.deliveries, model.attempts)
        return tuple(taken)

    def _step(self, taken: tuple[LeasedTask, ...], step: Any, worked: Any) -> Iterator[Model]:
        for task in taken:
            model = self.models[task.id]
            possible = model.owner == task.owner and TRANSITIONS.get((model.state, step)) is not None  # type: ignore[arg-type]
            assert worked(task) == possible
            if possible:
                model.state = TRANSITIONS.get((model.state, step))  # type: ignore[arg-type,assignment]
                yield model

    @rule(taken=leases)
    def finish(self, taken: tuple[LeasedTask, ...]) -> None:
        for model in self._step(taken, "finish", lambda task: self.tasks.store.finish(task, result="null")):
            model.finishes += 1
            model.owner = None

    @rule(taken=leases)
    def retry(self, taken: tuple[LeasedTask, ...]) -> None:
        for model in self._step(
            taken, "retry", lambda task: self.tasks.store.retry(task, delay=5, error="e")
        ):
            model.owner, model.due_at, model.deliveries = None, self.clock.time() + 5, 0
            model.attempts += 1

    @rule(taken=leases)
    def put_back(self, taken: tuple[LeasedTask, ...]) -> None:
        for model in self._step(
            taken, "put_back", lambda task: self.tasks.store.put_back(task, delay=5, error="e")
        ):
            model.owner, model.due_at = None, self.clock.time() + 5
            model.deliveries -= 1

    @rule(taken=leases)
    def give_up(self, taken: tuple[LeasedTask, ...]) -> None:
        for model in self._step(taken, "give_up", lambda task: self.tasks.store.give_up(task, error="e")):
            model.owner = None

    @rule(taken=leases)
    def stop(self, taken: tuple[LeasedTask, ...]) -> None:
        for model in self._step(taken, "stop", self.tasks.store.stop):
            model.owner = None

    @rule(taken=leases)
    def renew(self, taken: tuple[LeasedTask, ...]) -> None:
        if taken:
            ours = self.tasks.store.renew(taken, lease=LEASE)
            for model in self._step(taken, "renew", lambda task: task.owner in ours):
                model.due_at = self.clock.time() + LEASE

    @rule(task_id=ids)
    def cancel(self, task_id: str) -> None:
        model = self.models[task_id]
        found = TRANSITIONS.get((model.state, "cancel"))  # type: ignore[arg-type]
        assert self.tasks.cancel(task_id) == (found is not None)
        if found:
            model.state, model.asked = found, True

    @rule(task_id=ids)
    def replay(self, task_id: str) -> None:
        model = self.models[task_id]
        found = TRANSITIONS.get((model.state, "replay"))  # type: ignore[arg-type]
        assert self.tasks.replay(task_id) == (found is not None)
        if found:
            self.models[task_id] = Model(due_at=self.clock.time(), finishes=model.finishes)

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        for status, _ in self.tasks.listed():
            model = self.models[status.id]
            assert (status.state, status.deliveries, status.attempts) == (
                model.state,
                model.deliveries,
                model.attempts,
            )
            assert status.cancel_requested == model.asked
            assert (status.due_at is None) == (status.state in ENDS)
            assert model.finishes <= 1


def _run(url: str, examples: int) -> None:
    kind = type("MachineHere", (Machine,), {"url": url})
    run_state_machine_as_test(
        kind, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None)
    )


def test_steps_on_sqlite(tmp_path: Path) -> None:
    _run(f"sqlite:///{tmp_path / 'machine.db'}", 40)


@pytest.mark.postgres
def test_steps_on_postgresql(postgres_url: str) -> None:
    _run(postgres_url, 25)
