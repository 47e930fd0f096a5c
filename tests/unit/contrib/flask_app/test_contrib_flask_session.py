"""Flask's session inside ours: one cookie, one store, a new id at sign-in, data only."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from flask import (
    Response,
    flash,
    get_flashed_messages,
    render_template_string,
    request,
    session,
    stream_with_context,
)
from markupsafe import Markup

from contrib_flask_site import Site
from mks_hardening.contrib.flask_app import current_session
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi import CustomResponse, MemorySessionStore

Do = Callable[[], Any]


def put(**values: Any) -> Do:
    return lambda: session.update(values)


def seen() -> dict[str, Any]:
    return {"user": current_session().user_id, **session}


def look(site: Site, **how: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    site.visit(lambda: found.update(seen()), **how)
    return found


# --- what is kept


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        "日本",
        b"\x00\xff",
        [1, [2]],
        (1, ("a",)),
        {"a": {"b": (1,)}},
        {" t": [1]},
        dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        uuid.UUID(int=7),
        Markup("<b>x</b>"),
        [],
        "",
    ],
    ids=repr,
)
def test_what_flask_keeps_comes_back_as_it_was(value: Any) -> None:
    site = Site()
    site.visit(put(x=value, self=1))
    found = look(site)
    assert found == {"user": None, "x": value, "self": 1}
    assert type(found["x"]) is type(value)


@pytest.mark.parametrize(
    ("value", "clue"),
    [
        (Decimal(1), "Decimal"),
        (object(), "object"),
        ({1, 2}, "set"),
        (float("nan"), "Out of range"),
        ([{"deep": Decimal(1)}], "Decimal"),
    ],
)
def test_the_line_that_puts_in_what_is_no_data_is_told(value: Any, clue: str) -> None:
    site = Site()

    def view() -> None:
        with pytest.raises(
            (TypeError, ValueError), match=rf"session\['x'\] cannot be kept .*{clue}.*takes None, bool"
        ):
            session["x"] = value

    assert site.visit(view).status_code == 200
    assert site.cookie is None


def test_names_are_text() -> None:
    def view() -> None:
        with pytest.raises(TypeError, match="keys of the session must be strings, not int"):
            session[1] = 2  # type: ignore[index]

    assert Site().visit(view).status_code == 200


def test_what_is_too_large_is_told_with_the_name_that_is() -> None:
    site = Site()
    site.app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ValueError, match=r"4096 bytes of JSON.*session\['basket'\] takes 5002 of them"):
        site.visit(put(basket="x" * 5000, small=1))


def test_what_is_too_large_becomes_one_500_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    answer = site.visit(put(basket="x" * 5000))
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]
    assert len(errors) == 1


def test_a_change_inside_a_value_is_noticed() -> None:
    site = Site()
    site.visit(put(basket=["a"]))
    site.visit(lambda: session["basket"].append("b"))
    assert look(site)["basket"] == ["a", "b"]


def test_true_and_one_are_not_the_same() -> None:
    site = Site()
    site.visit(put(x=1))
    site.visit(put(x=True))
    assert look(site)["x"] is True


def test_reading_writes_nothing_and_a_page_without_session_varies_by_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site()
    site.visit(put(x=[1]))
    monkeypatch.setattr(MemorySessionStore, "update", lambda *_, **__: pytest.fail("written"))
    assert site.visit(lambda: str(session["x"])).headers["Vary"] == "Cookie"
    assert site.visit(lambda: str(session.new)).headers.get("Vary") is None


def test_the_mapping_is_one() -> None:
    site = Site()

    def view() -> None:
        assert session.new
        assert not session
        session.update(a=1, b=2)
        assert (list(session), len(session), "a" in session, session.pop("a")) == (["a", "b"], 2, True, 1)
        assert session.setdefault("c", 3) == 3
        del session["b"]
        assert session.modified
        assert repr(session) == "<HardenedSession of ['c']>"

    site.visit(view)
    assert look(site) == {"user": None, "c": 3}


# --- flash


def test_messages_come_once_and_also_before_sign_in() -> None:
    site = Site()
    site.visit(lambda: flash("wrong <password>", "error"))
    assert site.cookie is not None
    result: list[Any] = []
    site.visit(lambda: result.extend(get_flashed_messages(with_categories=True)))
    assert result == [("error", "wrong <password>")]
    assert site.cookie is None  # nothing is kept for nobody
    site.visit(lambda: result.extend(get_flashed_messages()))
    assert len(result) == 1


def test_markup_in_a_message_stays_markup() -> None:
    site = Site()
    site.visit(lambda: flash(Markup("<b>saved</b>")))
    result: list[Any] = []
    site.visit(lambda: result.extend(get_flashed_messages()))
    assert isinstance(result[0], Markup)


def test_reading_the_last_message_signs_nobody_out() -> None:
    site = Site()
    site.visit(lambda: current_session().start("alice"))
    site.visit(lambda: flash("hello"))
    site.visit(get_flashed_messages_of)
    assert look(site) == {"user": "alice"}


def get_flashed_messages_of() -> str:
    return str(get_flashed_messages())


# --- who is signed in


@pytest.mark.parametrize("key", ["user_id", "_user_id"])
@pytest.mark.parametrize("user", [7, "7", uuid.UUID(int=7)])
def test_the_name_of_the_user_signs_in_with_a_new_id(key: str, user: Any) -> None:
    site = Site()
    site.visit(put(basket=["helmet"]))
    planted = str(site.cookie)
    site.visit(put(**{key: user}))
    assert site.cookie != planted
    assert look(site) == {"user": str(user), key: user, "basket": ["helmet"]}
    assert look(site, client=site.other(planted)) == {"user": None}
    assert [record.user_id for record in site.parts.sessions.sessions(str(user))] == [str(user)]


def test_signing_in_as_flasks_tutorial_does() -> None:
    site = Site()
    site.visit(put(old=1))

    def sign_in() -> None:
        session.clear()
        session["user_id"] = 7

    def sign_out() -> None:
        session.clear()

    site.visit(sign_in)
    first = str(site.cookie)
    assert look(site) == {"user": "7", "user_id": 7}
    site.visit(sign_in)  # again, as the same
    assert site.cookie != first
    assert look(site, client=site.other(first)) == {}
    assert len(site.parts.sessions.sessions("7")) == 1
    site.visit(sign_out)
    assert site.cookie is None
    assert site.parts.sessions.sessions("7") == []


@pytest.mark.parametrize("how", ["pop", "end", "clear"])
def test_signing_out_ends_the_session_on_the_server(how: str) -> None:
    site = Site()
    site.visit(put(user_id=7, basket=["helmet"]))
    stolen = str(site.cookie)

    def sign_out() -> None:
        {"pop": lambda: session.pop("user_id"), "end": current_session().end, "clear": session.clear}[how]()
        flash("bye")

    site.visit(sign_out)
    assert site.visit(lambda: "", client=site.other(stolen)).status_code == 401
    found = look(site)
    assert (found["user"], "_flashes" in found) == (None, True)
    assert ("basket" in found) is (how == "pop")


def test_another_user_is_another_session() -> None:
    site = Site()
    site.visit(put(user_id=7))
    first = str(site.cookie)
    site.visit(put(user_id=8))
    assert look(site)["user"] == "8"
    assert site.visit(lambda: "", client=site.other(first)).status_code == 401


def test_what_the_handle_was_told_holds() -> None:
    site = Site()

    def view() -> None:
        session["note"] = "kept"
        current_session().start("alice", data={"role": "boss"})

    site.visit(view)
    assert look(site) == {"user": "alice", "role": "boss", "note": "kept"}
    site.visit(lambda: (current_session().rotate(), session.update(user_id="bob")))
    assert look(site)["user"] == "bob"


def test_clearing_ends_the_session_however_it_was_begun() -> None:
    site = Site()
    site.visit(lambda: current_session().start("alice"))
    stolen = str(site.cookie)

    def clear() -> None:
        session.clear()
        session["note"] = "bye"

    site.visit(clear)
    assert look(site) == {"user": None, "note": "bye"}
    assert site.visit(lambda: "", client=site.other(stolen)).status_code == 401
    visitor = str(site.cookie)
    site.visit(clear)
    assert site.cookie != visitor


def test_a_name_of_ones_own_says_who_is_signed_in() -> None:
    site = Site(user_keys=["member"])
    site.visit(put(member="m1", user_id=7))
    assert look(site)["user"] == "m1"


def test_limits_by_time_hold_for_flask_too() -> None:
    site = Site(sign_in_url="/sign-in")
    site.visit(put(user_id=7))
    site.clock.advance(1799)
    assert look(site)["user"] == "7"
    site.clock.advance(1800)
    assert site.visit(lambda: "").status_code == 401
    site.visit(put(basket=1))
    site.clock.advance(1800)
    assert look(site) == {"user": None}  # a visitor is told nothing


# --- the cookie


def test_permanent_lets_the_cookie_outlive_the_browser() -> None:
    site = Site()
    site.visit(put(user_id=7))
    assert site.browser.get_cookie("mks-session").max_age is None  # type: ignore[union-attr]
    site.clock.advance(800)

    def stay() -> None:
        session.permanent = True

    answer = site.visit(stay)
    assert "Max-Age=28000;" in answer.headers["Set-Cookie"]
    answer = site.visit(lambda: (current_session().rotate(), "")[1])
    assert "Max-Age=28000;" in answer.headers["Set-Cookie"]
    assert "Set-Cookie" not in site.visit(lambda: session.permanent and "").headers

    def forget() -> None:
        session.permanent = False

    assert "Max-Age" not in site.visit(forget).headers["Set-Cookie"]


def test_flask_sends_no_cookie_of_its_own() -> None:
    site = Site()
    answer = site.visit(put(user_id=7))
    assert [field.partition("=")[0] for field in answer.headers.getlist("Set-Cookie")] == ["mks-session"]
    assert site.app.session_interface.get_cookie_name(site.app) == "mks-session"


# --- tests of applications


def test_a_session_transaction_reads_and_writes() -> None:
    site = Site()
    with site.browser.session_transaction() as kept:
        kept["_user_id"] = "7"
        kept["basket"] = ("helmet",)
    assert look(site) == {"user": "7", "_user_id": "7", "basket": ("helmet",)}
    with site.browser.session_transaction() as kept:
        assert kept["basket"] == ("helmet",)
        kept.clear()
    assert look(site) == {"user": None}


def test_a_request_context_has_a_session() -> None:
    site = Site()
    with site.app.test_request_context("/"):
        session["x"] = 1
        assert session["x"] == 1
        site.app.preprocess_request()


def test_the_session_can_be_read_after_the_request() -> None:
    site = Site()
    with site.browser:
        site.visit(put(x=1))
        assert session["x"] == 1


# --- crossings


def test_requests_at_the_same_time_keep_what_each_other_changed() -> None:
    site = Site()
    site.visit(put(user_id=7))
    barrier = threading.Barrier(5)

    def change(number: int) -> None:
        client = site.other(str(site.cookie))
        barrier.wait()
        client.get("/", query_string={"n": str(number)})

    def view() -> None:
        session[f"n{request.args['n']}"] = session.get("user_id")

    site.do = view
    threads = [threading.Thread(target=change, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for name in look(site) if name.startswith("n")} == {f"n{number}" for number in range(5)}


def test_a_request_under_way_while_the_id_changes_reads_and_undoes_nothing() -> None:
    site = Site()
    site.visit(put(user_id=7, basket=[1]))
    old = str(site.cookie)

    def slow() -> str:
        session["late"] = session["basket"]
        inner = site.other(old)
        site.visit(lambda: (current_session().rotate(), session.update(factor=2), "")[2], client=inner)
        fresh = inner.get_cookie("mks-session")
        assert fresh is not None
        site.browser.set_cookie("mks-session", fresh.value)
        return "done"

    answer = site.visit(slow, client=site.other(old))
    assert (answer.text, answer.headers.get("Set-Cookie")) == ("done", None)
    assert look(site) == {"user": "7", "user_id": 7, "basket": [1], "factor": 2}


def test_a_request_under_way_while_somebody_signs_out_revives_nothing() -> None:
    site = Site()
    site.visit(put(user_id=7))
    old = str(site.cookie)

    def slow() -> str:
        session["late"] = 1
        site.parts.sessions.end_user("7")
        return "done"

    site.visit(slow)
    assert site.visit(lambda: "", client=site.other(old)).status_code == 401
    assert site.cookie is None


class AwayStore(MemorySessionStore):
    """Answers until the test says otherwise."""

    __slots__ = ("away",)

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.away: set[str] = set()

    def _here(self, operation: str) -> None:
        if operation in self.away:
            raise BackendUnavailableError("sessions", "refused", operation=operation, retry_after=7)

    def load(self, key: str, /) -> SessionRecord | None:
        self._here("load")
        return super().load(key)

    def create(self, *arguments: Any, **options: Any) -> Any:
        self._here("create")
        return super().create(*arguments, **options)

    def update(self, *arguments: Any, **options: Any) -> Any:
        self._here("update")
        return super().update(*arguments, **options)


@pytest.mark.parametrize("propagate", [False, True])
@pytest.mark.parametrize(("user", "operation"), [(None, "create"), (7, "create"), (7, "update")])
def test_an_outage_answers_503_and_keeps_the_cookie(
    user: Any, operation: str, propagate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(store=AwayStore(), outage_grace=60)
    site.app.config["PROPAGATE_EXCEPTIONS"] = propagate
    if operation == "update":
        site.visit(put(user_id=user))
    before = site.cookie
    site.store.away = {operation}
    closed = []

    def view() -> Response:
        session.update({"x": 1} if operation == "update" else {"user_id": user, "x": 1})
        said = {
            "Content-Length": "11",
            "ETag": '"1"',
            "Location": "/next",
            "Access-Control-Allow-Origin": "*",
        }
        answer = Response(iter(["all is well"]), headers=said)
        answer.call_on_close(lambda: closed.append(1))
        return answer

    answer = site.visit(view)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert answer.json["status"] == 503
    assert answer.headers.get("Set-Cookie") is None
    assert (answer.headers.get("ETag"), answer.headers.get("Location")) == (None, None)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    answer.close()
    assert (site.cookie, closed) == (before, [1])
    assert not [record for record in caplog.records if record.exc_info]


def test_a_view_that_has_told_of_an_outage_is_left_its_words() -> None:
    site = Site(store=AwayStore())
    site.store.away = {"create"}

    def view() -> Response:
        session["x"] = 1
        return Response("the database is away", status=503, headers={"Retry-After": "3"})

    answer = site.visit(view)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert answer.get_data(as_text=True) == "the database is away"


@pytest.mark.parametrize("propagate", [False, True])
def test_an_outage_inside_a_view_is_a_503(propagate: bool) -> None:
    site = Site(store=AwayStore())
    site.app.config["PROPAGATE_EXCEPTIONS"] = propagate
    site.store.away = {"create"}
    answer = site.visit(lambda: current_session().start("alice"))
    assert (answer.status_code, answer.headers["Retry-After"], answer.json["title"]) == (
        503,
        "7",
        "Service Unavailable",
    )


def test_a_stream_reads_the_session_and_a_late_change_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.visit(put(user_id=7))

    def view() -> Response:
        @stream_with_context
        def body() -> Any:
            yield str(session["user_id"])
            session["late"] = 1

        return Response(body())

    assert site.visit(view).text == "7"
    assert "changed after the response had begun" in caplog.text
    assert "late" not in look(site)


def test_teardown_may_read_the_session() -> None:
    site, calls = Site(), list[Any]()
    site.app.teardown_request(lambda error: calls.append(session.get("user_id")))
    site.visit(put(user_id=7))
    site.visit(lambda: "")
    assert calls == [7, 7]


def test_two_applications_of_one_process_know_nothing_of_each_other() -> None:
    one, two = Site(), Site()
    one.visit(put(user_id=7))
    assert look(two, client=two.other(str(one.cookie))) == {}
    assert look(two) == {"user": None}


def test_a_refusal_is_worded_by_the_application_while_the_store_is_away() -> None:
    """Its words are rendered outside the wrappers, where asking for the session would ask the store again."""

    def worded(environ: Any, refusal: Any) -> CustomResponse:
        with site.app.request_context({**environ}):
            return CustomResponse(
                body=render_template_string("休止中 {{ request.path }}"), content_type="text/plain"
            )

    site = Site(store=AwayStore(), on_refusal=worded)
    site.visit(put(user_id=7))
    site.store.away = {"load"}
    site.clock.advance(400)
    answer = site.visit(lambda: "unreached")
    assert (answer.status_code, answer.get_data(as_text=True)) == (503, "休止中 /")
    with site.app.test_request_context("/", headers={"Cookie": f"mks-session={site.cookie}"}):
        with pytest.raises(BackendUnavailableError):
            session.get("user_id")
        site.store.away = set()
        assert (session["user_id"], session.new) == (7, False)
