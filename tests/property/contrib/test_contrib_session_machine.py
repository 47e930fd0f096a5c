"""Whatever an application does with Flask's session: it sees what it put in, and an id never outlives its owner."""

from __future__ import annotations

from typing import Any

from flask import session
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from contrib_flask_site import Site
from mks_hardening.contrib._framework_session import SessionValues, decide
from mks_hardening.contrib.flask_app import current_session

NAMES = st.sampled_from(["a", "b", "self", "_flashes", "_permanent"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé日", max_size=3) | st.just(1.5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", " t"]), inner, max_size=2)
    ),
    max_leaves=4,
)
USERS = st.sampled_from([1, 2, "1"])
ACTS = st.lists(
    st.tuples(st.just("put"), NAMES, VALUES)
    | st.tuples(st.just("pop"), NAMES, st.none())
    | st.tuples(st.just("clear"), st.none(), st.none())
    | st.tuples(st.just("in"), st.just("user_id"), USERS)
    | st.tuples(st.just("out"), st.just("user_id"), st.none()),
    max_size=4,
)


def owner_in(values: dict[str, Any]) -> str | None:
    user = values.get("user_id")
    return None if user is None else str(user)


class SessionMachine(RuleBasedStateMachine):
    """One browser, and every id it ever held."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.model: dict[str, Any] = {}
        self.assigned: set[str] = set()
        self.owners: dict[str, str | None] = {}

    def view(self, acts: list[Any]) -> None:
        for act, name, value in acts:
            if act in {"put", "in"}:
                session[name] = self.model[name] = value
                self.assigned.add(name)
            elif act in {"pop", "out"}:
                assert session.pop(name, "none") == self.model.pop(name, "none")
            else:
                session.clear()
                self.model.clear()
                self.assigned.clear()

    @rule(acts=ACTS)
    def request(self, acts: list[Any]) -> None:
        before = owner_in(self.model)
        self.assigned.clear()
        assert self.site.visit(lambda: self.view(acts)).status_code == 200
        owner = owner_in(self.model)
        if before is not None and owner not in (None, before):
            # Another user begins with what this request has put in.
            self.model = {name: value for name, value in self.model.items() if name in self.assigned}
        if self.site.cookie is not None:
            assert self.owners.setdefault(self.site.cookie, owner) == owner  # an id has one owner for ever

    @rule()
    def rotate(self) -> None:
        before = self.site.cookie
        self.site.visit(lambda: str(current_session().rotate()))
        if before is not None:
            assert self.site.cookie != before
            self.owners[str(self.site.cookie)] = self.owners[before]

    @rule(seconds=st.integers(0, 1200))
    def wait(self, seconds: int) -> None:
        self.site.clock.advance(float(seconds))

    @invariant()
    def the_next_request_sees_it(self) -> None:
        found: dict[str, Any] = {}

        def look() -> None:
            found.update(session)
            assert current_session().user_id == owner_in(self.model)

        assert self.site.visit(look).status_code == 200
        assert found == self.model
        assert (self.site.cookie is None) == (not self.model)

    @invariant()
    def old_ids_are_worth_nothing(self) -> None:
        for cookie in list(self.owners)[-4:]:
            if cookie == self.site.cookie:
                continue
            with self.site.other(cookie).session_transaction() as kept:
                assert dict(kept) == {}

    def teardown(self) -> None:
        self.site.parts.close()


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=30, stateful_step_count=20)

PAIRS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@given(before=PAIRS, now=PAIRS, exists=st.booleans(), user=USERS | st.none())
def test_nothing_is_done_where_nothing_was_changed(
    before: dict[str, Any], now: dict[str, Any], exists: bool, user: Any
) -> None:
    owner = None if user is None else str(user)
    how: dict[str, Any] = {"assigned": (), "exists": exists, "owner": owner, "moved": False, "cleared": False}
    assert decide(SessionValues(before, owner), SessionValues(dict(before), owner), **how).act == "nothing"
    change = decide(SessionValues(before, owner), SessionValues(now, owner), **how)
    if change.act in {"merge", "begin"}:
        kept = {**(before if exists else {}), **change.values}
        for name in change.removed:
            kept.pop(name, None)
        assert {name: value for name, value in kept.items() if exists or name in change.values} == (
            now if exists else dict(change.values)
        )
