"""Proving again who one is, changing password and address, and getting in after forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import ChangeResult, CredentialChanges, SignInStep
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, Scenario, Session, Traced, audited

NEW = "an entirely new sentence"


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()


@pytest.fixture
def seen_events() -> Iterator[list[events.SignInEvent]]:
    with audited() as seen:
        yield seen


# --- step-up ---------------------------------------------------------------------------------------------


def test_step_up_belongs_to_the_session_and_not_to_the_user(scenario: Scenario) -> None:
    """ASVS 5.0, 7.5.3."""
    one, two = scenario.signed_in(), scenario.signed_in()
    scenario.clock.advance(301)
    assert not scenario.sign_in.factor_within(one, 300)
    before = one.reference
    step = scenario.sign_in.confirm_factor(one, scenario.code(), client=HERE)
    assert (step.state, step.user_id) == ("done", "1")
    assert one.reference != before  # ASVS 5.0, 7.2.4
    assert scenario.sign_in.factor_within(one, 300)
    assert scenario.sign_in.confirmed_within(one, 300)
    assert not scenario.sign_in.factor_within(two, 300)
    assert not scenario.sign_in.confirmed_within(two, 300)


def test_a_password_confirms_only_where_no_factor_is_on(scenario: Scenario) -> None:
    with_factor, without = scenario.signed_in("tanaka"), scenario.signed_in("sato")
    scenario.clock.advance(301)
    for session in (with_factor, without):
        assert not scenario.sign_in.confirmed_within(session, 300)
        assert scenario.sign_in.confirm_password(session, RIGHT, client=HERE)
    assert not scenario.sign_in.confirmed_within(with_factor, 300)
    assert scenario.sign_in.confirmed_within(without, 300)
    assert not scenario.sign_in.factor_within(without, 300)


@pytest.mark.parametrize(("back", "recent"), [(30, True), (61, False)])
def test_a_clock_that_steps_back_makes_nothing_recent(scenario: Scenario, back: float, recent: bool) -> None:
    session = scenario.signed_in()
    scenario.clock.step_wall(-back)
    assert scenario.sign_in.factor_within(session, 300) is recent


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"sign_in": None},
        {"sign_in": []},
        {"sign_in": {"amr": "pwd", "auth_time": 1}},
        {"sign_in": {"amr": []}},
    ],
)
def test_a_session_that_no_sign_in_began_proves_nothing(scenario: Scenario, data: dict[str, Any]) -> None:
    session = scenario.browser()
    session.start("1", data=data)
    assert not scenario.sign_in.factor_within(session, 1e9)
    assert not scenario.sign_in.confirmed_within(session, 1e9)
    assert scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE) == SignInStep(
        state="expired"
    )
    assert scenario.sign_in.confirm_password(session, RIGHT, client=HERE) == SignInStep(state="expired")


@pytest.mark.parametrize("spoil", ["signed out", "disabled", "gone"])
def test_who_may_not_sign_in_confirms_nothing(scenario: Scenario, spoil: str) -> None:
    session = scenario.signed_in()
    if spoil == "signed out":
        scenario.end_user("1")
    elif spoil == "disabled":
        scenario.people.change("1", disabled=True)
    else:
        del scenario.people.by_id["1"]
    assert scenario.sign_in.confirm_factor(session, scenario.codes[0], client=HERE).state == "expired"
    assert scenario.sign_in.confirm_password(session, RIGHT, client=HERE).state == "expired"
    assert scenario.changes.change_password(session, RIGHT, NEW, client=HERE).state == "expired"
    assert scenario.changes.request_email_change(session, "x@example.com", client=HERE).state == "expired"


def test_guessing_within_a_session_is_limited_and_strangers_do_not_use_it_up(
    scenario: Scenario, seen_events: list[events.SignInEvent]
) -> None:
    thief, owner = scenario.signed_in("sato"), scenario.signed_in("sato")
    scenario.locked("sato")
    states = [scenario.sign_in.confirm_password(thief, "guess", client=HERE).state for _ in range(12)]
    assert states == ["refused"] * 10 + ["limited"] * 2
    assert scenario.sign_in.confirm_password(owner, RIGHT, client=HERE)
    session = scenario.signed_in()
    codes = [scenario.sign_in.confirm_factor(session, scenario.wrong_code(), client=HERE) for _ in range(4)]
    assert [step.state for step in codes] == ["refused", "refused", "limited", "limited"]
    assert seen_events[-1].change == "confirmation_refused"


def test_a_session_that_is_lost_meanwhile_gets_no_right(scenario: Scenario) -> None:
    class Lost(Session):
        def rotate(self) -> bool:
            return False

    session = Lost(scenario.sessions)
    scenario.sign_in.password("sato", RIGHT, client=HERE, session=session)
    scenario.clock.advance(301)
    assert scenario.sign_in.confirm_password(session, RIGHT, client=HERE).state == "expired"
    assert not scenario.sign_in.confirmed_within(session, 300)


# --- changing the password -------------------------------------------------------------------------------


def test_a_changed_password_ends_other_sessions(
    scenario: Scenario, seen_events: list[events.SignInEvent]
) -> None:
    """ASVS 5.0, 6.2.2, 6.2.3, 6.3.7 and 7.4.3."""
    mine, other, somebody = (
        scenario.signed_in("sato"),
        scenario.signed_in("sato"),
        scenario.signed_in("tanaka"),
    )
    before = mine.reference
    assert scenario.changes.change_password(mine, RIGHT, NEW, client=HERE)
    assert scenario.people.by_id["2"].password_hash == f"new1:{NEW}"
    assert (mine.user_id, other.user_id, somebody.user_id) == ("2", None, "1")
    assert mine.reference != before
    assert [notice.kind for notice in scenario.notices] == ["password_changed"]
    assert seen_events[-1].change == "password_changed"
    assert scenario.sign_in.password("sato", NEW, client=HERE)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE).state == "refused"


def test_it_needs_the_present_password_and_a_fresh_factor(scenario: Scenario) -> None:
    session = scenario.signed_in()
    assert scenario.changes.change_password(session, "guess", NEW, client=HERE).state == "refused"
    scenario.clock.advance(301)
    assert scenario.changes.change_password(session, RIGHT, NEW, client=HERE).state == "step_up"
    assert scenario.people.by_id["1"].password_hash == f"h:{RIGHT}"
    scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE)
    assert scenario.changes.change_password(session, RIGHT, NEW, client=HERE)


@pytest.mark.parametrize(
    "new",
    ["short", "password123", "sato@example.com", "satosatosato", "x" * 2000, "", None, 7, "\ud800" * 12],
)
def test_a_weak_password_changes_nothing(scenario: Scenario, new: Any) -> None:
    """ASVS 5.0, 6.2.1 and 6.2.4; words about the owner included."""
    session = scenario.signed_in("sato")
    result = scenario.changes.change_password(session, RIGHT, new, client=HERE)
    assert result.state == "weak"
    assert result.verdict is not None
    assert result.verdict.errors
    assert ("not_text" in result.verdict.errors) is (not isinstance(new, str) or new[:1] == "\ud800")
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"


def test_a_password_changed_meanwhile_is_not_overwritten(scenario: Scenario) -> None:
    session = scenario.signed_in("sato")
    scenario.people.set_password = lambda *_, **__: False  # type: ignore[method-assign]
    assert scenario.changes.change_password(session, RIGHT, NEW, client=HERE).state == "expired"


def test_accounts_that_do_not_tell_whether_they_stored_it(scenario: Scenario) -> None:
    """As an application that forgot its ``return``: nobody may be told that nothing has changed."""
    session = scenario.signed_in("sato")
    store = scenario.people.set_password

    def forgetful(*args: Any, **options: Any) -> None:
        store(*args, **options)

    scenario.people.set_password = forgetful  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError, match=r"accounts\.set_password\(\) must return whether") as caught:
        scenario.changes.change_password(session, RIGHT, NEW, client=HERE)
    assert caught.value.parameter == "accounts"
    scenario.people.change("2", password_hash=f"old:{RIGHT}", stamp="")
    with audited() as seen:
        assert scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert [event.reason for event in seen if event.change == "rehash_failed"] == ["ConfigurationError"]


class _StoppedError(BaseException):
    """Like a cancellation: no ``Exception``."""


@pytest.mark.parametrize("error", [RuntimeError, _StoppedError])
@pytest.mark.parametrize("where", ["set_password", "end_others", "on_notice"])
@pytest.mark.parametrize("how", ["change", "reset"])
def test_a_session_begun_just_before_an_interrupted_write(
    scenario: Scenario, how: str, where: str, error: type[BaseException]
) -> None:
    """A thief signs in with the old password between the end of the sessions and the write, which is stored."""
    mine, thief = scenario.signed_in("sato"), scenario.browser()
    scenario.changes.request_reset("sato", client=HERE)
    token = scenario.notices[-1].token or ""
    store, post = scenario.people.set_password, scenario.changes._context.on_notice
    end_others, ended = mine.end_others, []
    assert post is not None

    def set_password(*args: Any, **options: Any) -> bool:
        assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE, session=thief)
        assert store(*args, **options)
        if where == "set_password":
            raise error
        return True

    def stop_after(act: Any, notice: Any) -> None:
        act(notice)
        if notice.kind == "password_changed":
            raise error

    scenario.people.set_password = set_password  # type: ignore[method-assign, assignment]
    if where == "on_notice":
        object.__setattr__(scenario.changes._context, "on_notice", partial(stop_after, post))
    elif where == "end_others":

        def fail_after_the_write() -> None:
            ended.append(None)
            end_others()
            if len(ended) == 2:
                raise error

        mine.end_others = fail_after_the_write  # type: ignore[method-assign]
    with suppress(error):
        if how == "reset":
            scenario.changes.reset_password(token, NEW, client=HERE)
        else:
            scenario.changes.change_password(mine, RIGHT, NEW, client=HERE)
    assert scenario.people.by_id["2"].password_hash.endswith(f":{NEW}")
    assert thief.user_id is None
    told = [notice.kind for notice in scenario.notices].count("password_changed")
    assert told == (where != "set_password")


@pytest.mark.parametrize("rows", [0, 1])
def test_accounts_may_return_how_many_rows_they_changed(scenario: Scenario, rows: int) -> None:
    session = scenario.signed_in("sato")
    scenario.people.set_password = lambda *_, **__: rows  # type: ignore[method-assign, assignment]
    result = scenario.changes.change_password(session, RIGHT, NEW, client=HERE)
    assert result.state == ("done" if rows else "expired")


# --- resets ----------------------------------------------------------------------------------------------


def test_a_reset_by_a_mailed_token(scenario: Scenario, seen_events: list[events.SignInEvent]) -> None:
    """ASVS 5.0, 6.4.1, 6.4.3 and 7.4.3: it works once, ends all sessions, and passes no second factor."""
    session = scenario.signed_in("tanaka")
    scenario.locked("tanaka")
    assert scenario.changes.request_reset("tanaka", client=HERE)
    notice = scenario.notices[-1]
    assert (notice.kind, notice.to) == ("reset_requested", "tanaka@example.com")
    assert notice.token is not None
    assert notice.token not in repr(scenario.store.__dict__)  # only a digest is kept
    assert scenario.changes.reset_password(notice.token, "short", client=ELSEWHERE).state == "weak"
    assert scenario.changes.reset_password(notice.token, NEW, client=ELSEWHERE)
    assert session.user_id is None
    assert scenario.notices[-1].kind == "password_changed"
    assert scenario.sign_in.password("tanaka", NEW, client=HERE).state == "challenged"
    assert scenario.changes.reset_password(notice.token, NEW + "!", client=HERE) == ChangeResult(
        state="expired"
    )
    assert [event.change for event in seen_events][-3:] == ["password_changed", "challenged", "reset_refused"]


def test_a_token_works_for_one_of_many_at_once(scenario: Scenario) -> None:
    scenario.changes.request_reset("sato", client=HERE)
    token = scenario.notices[-1].token or ""
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda n: scenario.changes.reset_password(token, f"{NEW} {n}", client=HERE).state, range(8)
            )
        )
    assert sorted(done) == ["done"] + ["expired"] * 7


@pytest.mark.parametrize(
    "cause", ["late", "password changed", "another was used", "disabled", "of another kind", "rehash"]
)
def test_a_token_dies(scenario: Scenario, cause: str) -> None:
    for _ in range(2):
        scenario.changes.request_reset("sato", client=HERE)
    first, second = (notice.token or "" for notice in scenario.notices)
    state = "expired"
    if cause == "late":
        scenario.clock.advance(1800)
    elif cause == "password changed":
        scenario.changes.change_password(
            scenario.signed_in("sato"), RIGHT, "the sentence in between", client=HERE
        )
    elif cause == "another was used":
        assert scenario.changes.reset_password(second, "the sentence in between", client=HERE)
    elif cause == "disabled":
        scenario.people.change("2", disabled=True)
    elif cause == "of another kind":
        scenario.changes.request_email_change(scenario.signed_in("sato"), "new@example.com", client=HERE)
        first = scenario.notices[-1].token or ""
    else:
        scenario.people.change("2", password_hash=f"h2:{RIGHT}")  # a stamp of its own stays
        state = "done"
    assert scenario.changes.reset_password(first, NEW, client=HERE).state == state


@pytest.mark.parametrize("name", ["sato", "nobody", "gone", "", "\0", "x" * 300])
def test_a_request_is_answered_alike_whoever_is_meant(name: str) -> None:
    """The same answer, the same calls; only the notice differs, and that is put into a queue."""
    answers = []
    for who in ("nobody", name):
        scenario = Scenario()
        trace: list[str] = []
        scenario.parts |= {
            part: Traced(scenario.parts[part], trace, part) for part in ("store", "limiter", "passwords")
        }
        changes = CredentialChanges(
            type(scenario.sign_in)(Traced(scenario.people, [], "people"), **scenario.parts)
        )
        answers.append((changes.request_reset(who, client=HERE), trace))
        answers.append((changes.reset_password("A" * 43, NEW, client=HERE), []))
    assert answers[:2] == answers[2:]


def test_requests_are_limited_by_name_and_by_address(scenario: Scenario) -> None:
    for name in ("sato", "nobody"):
        states = [scenario.changes.request_reset(name, client=scenario.stranger(n)).state for n in range(5)]
        assert states == ["done"] * 3 + ["limited"] * 2
    assert len(scenario.notices) == 3
    many = [scenario.changes.request_reset(f"user{n}", client=HERE).state for n in range(40)]
    assert many.count("done") == 30


class Unwilling:
    """Does what the function does, once it is told to; until then its server is away."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.away = True

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.away:
            raise BackendUnavailableError("server", "timeout", operation="call")
        return self.function(*args, **options)


def test_a_session_that_begins_while_a_reset_is_stored_ends_too(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the old password, by somebody who was quick."""
    scenario.changes.request_reset("sato", client=HERE)
    token = scenario.notices[-1].token or ""
    store, thieves = scenario.people.set_password, list[Session]()

    def stored(*args: Any, **options: Any) -> Any:
        thieves.append(scenario.signed_in("sato"))
        return store(*args, **options)

    monkeypatch.setattr(scenario.people, "set_password", stored)
    assert scenario.changes.reset_password(token, NEW, client=HERE)
    assert [thief.user_id for thief in thieves] == [None]


@pytest.mark.parametrize("part", ["hasher", "sessions"])
def test_an_outage_in_the_middle_of_a_reset_costs_no_token(scenario: Scenario, part: str) -> None:
    """Else a thief's session outlives the reset, or a busy second makes the owner ask for another mail."""
    thief = scenario.signed_in("sato")
    server = Unwilling(scenario.passwords.hash if part == "hasher" else scenario.end_user)
    if part == "hasher":
        scenario.passwords.hash = server  # type: ignore[method-assign]
        changes = scenario.changes
    else:
        changes = CredentialChanges(
            type(scenario.sign_in)(scenario.people, **scenario.parts | {"end_sessions": server})
        )
    changes.request_reset("sato", client=HERE)
    token = scenario.notices[-1].token or ""
    with pytest.raises(BackendUnavailableError):
        changes.reset_password(token, NEW, client=HERE)
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"
    server.away = False
    assert changes.reset_password(token, NEW, client=HERE)
    assert thief.user_id is None


def test_the_owner_is_told_though_other_sessions_cannot_be_ended(
    scenario: Scenario, seen_events: list[events.SignInEvent]
) -> None:
    session = scenario.signed_in("sato")
    end_others = Unwilling(session.end_others)
    end_others.away = False
    session.end_others = end_others  # type: ignore[method-assign]
    store = scenario.people.set_password

    def set_password(*args: Any, **options: Any) -> bool:
        end_others.away = True
        return store(*args, **options)

    scenario.people.set_password = set_password  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailableError):
        scenario.changes.change_password(session, RIGHT, NEW, client=HERE)
    assert scenario.notices[-1].kind == seen_events[-1].change == "password_changed"


def test_a_request_that_met_an_outage_is_not_counted(scenario: Scenario) -> None:
    session = scenario.signed_in("sato")
    scenario.people.fault = BackendUnavailableError("accounts", "timeout", operation="find")
    for _ in range(5):
        with pytest.raises(BackendUnavailableError):
            scenario.changes.request_reset("sato", client=HERE)
    scenario.people.fault = None
    replace, scenario.store.replace = scenario.store.replace, Unwilling(None)
    for _ in range(5):
        with pytest.raises(BackendUnavailableError):
            scenario.changes.request_email_change(session, "new@example.com", client=HERE)
    scenario.store.replace = replace
    for _ in range(3):
        assert scenario.changes.request_reset("sato", client=HERE)
        assert scenario.changes.request_email_change(session, "new@example.com", client=HERE)
    assert scenario.changes.request_reset("sato", client=HERE).state == "limited"


@pytest.mark.parametrize("shape", ["partial", "object", "async def"])
def test_sessions_are_ended_by_anything_that_can_be_called(scenario: Scenario, shape: str) -> None:
    """Nothing but a plain function has a name, and what is async def would end nothing in a thread."""
    session = scenario.signed_in("sato")
    seen = Unwilling(scenario.end_user)
    seen.away = False

    async def later(user_id: str) -> None:
        scenario.end_user(user_id)

    end: Any = {"partial": partial(seen), "object": seen, "async def": later}[shape]
    changes = CredentialChanges(
        type(scenario.sign_in)(scenario.people, **scenario.parts | {"end_sessions": end})
    )
    changes.request_reset("sato", client=HERE)
    assert asyncio.run(changes.areset_password(scenario.notices[-1].token or "", NEW, client=HERE))
    assert session.user_id is None


def test_by_def_no_function_that_is_async_def_is_passed_over(scenario: Scenario) -> None:
    """Its sessions would not be ended, and its mail not be sent, without a word."""
    mailed: list[Any] = []

    async def later(found: Any) -> None:
        mailed.append(found)

    changes = CredentialChanges(
        type(scenario.sign_in)(scenario.people, **scenario.parts | {"end_sessions": later})
    )
    changes.request_reset("sato", client=HERE)
    with pytest.raises(ConfigurationError):
        changes.reset_password(scenario.notices[-1].token or "", NEW, client=HERE)
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"
    with audited() as seen:
        changes = CredentialChanges(
            type(scenario.sign_in)(scenario.people, **scenario.parts | {"on_notice": later})
        )
        changes.request_reset("sato", client=HERE)
    assert "notice_failed" in [event.change for event in seen]
    assert mailed == []


# --- the address -----------------------------------------------------------------------------------------


def test_a_new_address_is_confirmed_by_its_owner_and_the_old_one_is_told(scenario: Scenario) -> None:
    session = scenario.signed_in("sato")
    assert scenario.changes.request_email_change(session, "new@example.com", client=HERE)
    notice = scenario.notices[-1]
    assert (notice.kind, notice.to) == ("email_change_requested", "new@example.com")
    assert scenario.people.by_id["2"].email == "sato@example.com"
    assert scenario.changes.confirm_email(notice.token or "", client=ELSEWHERE)
    assert scenario.people.by_id["2"].email == "new@example.com"
    assert (scenario.notices[-1].kind, scenario.notices[-1].to) == ("email_changed", "sato@example.com")
    assert scenario.changes.confirm_email(notice.token or "", client=ELSEWHERE).state == "expired"


@pytest.mark.parametrize("kind", ["a stranger's address", "the former mailbox"])
def test_a_changed_address_ends_what_was_mailed_before(scenario: Scenario, kind: str) -> None:
    """A link that went to an address typed by mistake, or to a mailbox that was given up, takes no account over."""
    session = scenario.signed_in("sato")
    if kind == "the former mailbox":
        scenario.changes.request_reset("sato", client=HERE)
    else:
        scenario.changes.request_email_change(session, "stranger@example.com", client=HERE)
    before = scenario.notices[-1].token or ""
    scenario.changes.request_email_change(session, "new@example.com", client=HERE)
    assert scenario.changes.confirm_email(scenario.notices[-1].token or "", client=HERE)
    assert scenario.changes.confirm_email(before, client=ELSEWHERE).state == "expired"
    assert scenario.changes.reset_password(before, NEW, client=ELSEWHERE).state == "expired"
    assert scenario.people.by_id["2"].email == "new@example.com"
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"


def test_a_stale_session_changes_no_address(scenario: Scenario) -> None:
    """ASVS 5.0, 7.5.1."""
    session = scenario.signed_in()
    scenario.clock.advance(301)
    assert scenario.changes.request_email_change(session, "new@example.com", client=HERE).state == "step_up"
    scenario.sign_in.confirm_password(session, RIGHT, client=HERE)
    assert scenario.changes.request_email_change(session, "new@example.com", client=HERE).state == "step_up"
    scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE)
    assert scenario.changes.request_email_change(session, "new@example.com", client=HERE)


@pytest.mark.parametrize(
    "email",
    ["", "x", "@", "a@", "@b", "a b@c", "a@b\nBcc: c@d", "a@b\0", "a" * 250 + "@b.jp", None, 7, "a@\u2028b",
     "a@b,c@d", "a@b;c@d", "<a@b>", "c<a@b>", "a@b>", "a@b@c", '"a,b"@c', "a(c)@b", "mailto:a@b", "a\\@b"],
)  # fmt: skip
def test_what_is_no_address(scenario: Scenario, email: Any) -> None:
    session = scenario.signed_in("sato")
    assert scenario.changes.request_email_change(session, email, client=HERE).state == "unusable"
    assert scenario.notices == []


@pytest.mark.parametrize("missing", [{"end_sessions": None}, {"on_notice": None}])
def test_changes_cannot_be_composed_wrongly(scenario: Scenario, missing: dict[str, None]) -> None:
    sign_in = type(scenario.sign_in)(scenario.people, **{**scenario.parts, **missing})
    with pytest.raises(ConfigurationError):
        CredentialChanges(sign_in)


def test_a_session_that_cannot_end_others_is_refused_before_anything_is_stored(scenario: Scenario) -> None:
    session = scenario.signed_in("sato")
    session.end_others = None  # type: ignore[assignment,method-assign]
    with pytest.raises(ConfigurationError) as refused:
        scenario.changes.change_password(session, RIGHT, NEW, client=HERE)
    assert refused.value.parameter == "session"
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"


@pytest.mark.parametrize("options", [{"token_ttl": 299}, {"token_ttl": 86401}, {"confirmed_within": 0}])
def test_impossible_times_are_refused(scenario: Scenario, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        CredentialChanges(scenario.sign_in, **options)  # type: ignore[arg-type]
    assert refused.value.parameter in options
    assert CredentialChanges(scenario.sign_in, token_ttl=300)
    assert CredentialChanges(scenario.sign_in, token_ttl=86400)
    with pytest.raises(ConfigurationError):
        CredentialChanges(scenario)  # type: ignore[arg-type]
