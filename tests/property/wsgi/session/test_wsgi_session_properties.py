from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening._edge.session.cookie_header import CookieFilter, find_cookie
from mks_hardening._edge.session.request_kind import wants_page
from mks_hardening._edge.session.session_ids import key_of
from mks_hardening._edge.session.session_lookup import SessionLookup
from mks_hardening._edge.session.session_rules import SessionLimits, check_session, decode_data, encode_data
from mks_hardening._edge.session.steady_clock import SteadyClock
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionCookie

NOW = 1_700_000_000
SPAN = st.integers(0, 100_000)
LIMIT = st.integers(1, 50_000)


def record_of(created: int, ended: str = "") -> SessionRecord:
    return SessionRecord("k", "u", float(created), float(created), float(created), ended=ended)


@given(SPAN, SPAN, LIMIT, LIMIT)
@example(seen=100, passed=100, idle=100, absolute=200)  # both limits at once
@example(seen=100, passed=99, idle=100, absolute=200)
def test_a_session_lives_until_the_nearer_limit(seen: int, passed: int, idle: int, absolute: int) -> None:
    now = NOW + seen + passed
    reason, deadline = check_session(record_of(NOW), NOW + seen, now, SessionLimits(idle, absolute))
    assert (
        deadline
        == min(NOW + seen + idle, NOW + absolute)
        == SessionLimits(idle, absolute).deadline(NOW, NOW + seen)
    )
    assert bool(reason) == (now >= deadline)
    if reason:
        assert reason == ("idle" if seen + idle < absolute else "absolute")


@given(SPAN, LIMIT, LIMIT, st.sampled_from(["idle", "absolute", "revoked"]))
def test_an_ended_session_keeps_its_reason(passed: int, idle: int, absolute: int, reason: str) -> None:
    assert (
        check_session(record_of(NOW, reason), NOW, NOW + passed, SessionLimits(idle, absolute))[0] == reason
    )


@given(st.text(min_size=1))
@example("idle\r\nSet-Cookie: a=b")
def test_a_store_does_not_choose_the_text_of_the_reason(ended: str) -> None:
    reason, _ = check_session(record_of(NOW, ended), NOW, NOW, SessionLimits(1, 1))
    assert reason == (ended if ended in ("idle", "absolute", "revoked") else "revoked")


@given(SPAN, SPAN, SPAN, LIMIT, LIMIT)
def test_what_is_over_stays_over(seen: int, passed: int, more: int, idle: int, absolute: int) -> None:
    limits, record = SessionLimits(idle, absolute), record_of(NOW)
    first = check_session(record, NOW + seen, NOW + seen + passed, limits)
    later = check_session(record, NOW + seen, NOW + seen + passed + more, limits)
    assert not first[0] or later == first


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e5, 1e5)), max_size=30))
@example([(True, 10.0), (False, -5.0), (True, 1.0)])
def test_the_steady_clock_never_loses_time(moves: list[tuple[bool, float]]) -> None:
    clock = FrozenClock()
    steady = SteadyClock(clock)
    before, ticked = steady.time(), clock.monotonic()
    for passes, seconds in moves:
        if passes:
            clock.advance(abs(seconds))
        else:
            clock.step_wall(seconds)
        now = steady.time()
        assert now - before >= clock.monotonic() - ticked - 0.002
        assert now >= clock.time()
        before, ticked = now, clock.monotonic()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_data_comes_back(data: dict[str, Any]) -> None:
    try:
        text = encode_data(data)
    except ValueError:
        return
    assert decode_data(text) == data


PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["sid", "xsid", "sid2", "SID", "a", ""]),
        st.text(alphabet='abc="\\ ', max_size=4),
        st.sampled_from([";", "; ", " ;  "]),
    ),
    max_size=6,
)


@given(PAIRS)
@example([("sid", "a", ";"), ("sid", "b", ";")])
@example([("a", "sid=x", "; "), ("sid", "b", "; ")])
def test_finding_a_cookie_agrees_with_the_long_way(pairs: list[tuple[str, str, str]]) -> None:
    header = "".join(f"{name}={value}{gap}" for name, value, gap in pairs)
    values = {value.strip(' "') for name, value, _ in pairs if name == "sid"} - {""}
    found = find_cookie(header, "sid=")
    if len(values) > 1:
        assert found is not None
        assert "," in found
    else:
        assert found == (values.pop() if values else None)


@given(PAIRS)
def test_hidden_cookies_are_gone_and_others_stay(pairs: list[tuple[str, str, str]]) -> None:
    header = "".join(f"{name}={value}{gap}" for name, value, gap in pairs)
    left = CookieFilter(["sid"]).without(header)
    assert find_cookie(left, "sid=") is None
    kept = [f"{name}={value}".strip() for name, value, _ in pairs if name != "sid"]
    assert [part.strip() for part in left.split(";") if part.strip()] == kept


@given(st.sampled_from(["Lax", "Strict", "None"]), st.booleans())
def test_a_cookie_is_cleared_as_it_was_set(same_site: Any, secure: bool) -> None:
    if same_site == "None" and not secure:
        return
    cookie = SessionCookie(secure=secure, same_site=same_site)
    set_parts = set(cookie.setting("v")[1].split("; ")[1:])
    assert set_parts < set(cookie.clearing()[1].split("; ")[1:])
    assert ("Secure" in set_parts) == secure == cookie.name.startswith("__Host-")


@given(st.text(alphabet="texhml/q=01.5,;* applicationjs", max_size=80))
def test_accept_is_never_an_error(accept: str) -> None:
    assert wants_page(accept, "") in (True, False)


@given(
    SPAN,
    SPAN,
    st.builds(SessionLimits, LIMIT, LIMIT),
    st.sampled_from(["", "", "idle", "revoked"]),
    st.booleans(),
)
@example(seen=0, passed=100, limits=SessionLimits(100, 100), ended="", active=True)
@example(seen=0, passed=99, limits=SessionLimits(100, 100), ended="", active=True)
def test_a_keeper_judges_as_the_rules_do(
    seen: int, passed: int, limits: SessionLimits, ended: str, active: bool
) -> None:
    clock = FrozenClock(NOW + seen + passed)
    store = MemorySessionStore(clock=clock)
    key = key_of("id")
    record = SessionRecord(key, "u", float(NOW), float(NOW + seen), NOW + 1e9, ended=ended)
    store._records[key] = record
    keeper = SessionLookup(
        store,
        limits=limits,
        write_interval=0.0,
        outage_grace=0.0,
        max_sessions=None,
        on_expired=None,
        clock=None,
    )
    expected, deadline = check_session(record, record.seen_at, clock.time(), limits)
    found, reason, until = keeper.find("id", active=active)
    assert reason == expected
    if expected:
        assert (found, until) == (record, deadline)
        kept = store.load(key)
        assert kept is not None
        assert kept.ended == expected
    else:
        now = clock.time()
        assert until == limits.deadline(NOW, now if active else record.seen_at)
        kept = store.load(key)
        assert kept is not None
        assert kept.seen_at == (now if active else record.seen_at)
