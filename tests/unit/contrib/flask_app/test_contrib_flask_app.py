"""What Hardening gives an application of Flask beside its session, and what it refuses to do."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    g,
    redirect,
    render_template_string,
    request,
    session,
)
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView
from werkzeug.debug import DebuggedApplication
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from contrib_flask_site import Site, settings_of
from mks_hardening import compose
from mks_hardening.contrib.flask_app import Hardening, Installed, current_session, exempt, limit
from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConcurrencyExceededError,
    ConfigurationError,
    RateLimitExceededError,
)
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    ConcurrencyLimiter,
    MemorySignInStore,
    RateLimiter,
    SignIn,
    SignInAccount,
    SignInClient,
    SignInNotice,
)
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import HeaderPolicy, MemorySessionStore, RateLimitRule

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def made(**options: Any) -> Flask:
    app = Flask(__name__)
    Hardening(app, settings_of(), **options)
    return app


def request_records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "mks_hardening.request"]


# --- limits


def limited(**how: Any) -> Flask:
    app = made(groups={"few": "2 per minute"})

    @app.route("/few", methods=["GET", "POST"])
    @limit("few", **how)
    def few() -> str:
        return "ok"

    @app.get("/sign-in/<user>")
    def sign_in(user: str) -> str:
        current_session().start(user)
        return ""

    return app


def statuses(client: Any, *paths: str, **how: Any) -> list[int]:
    return [client.get(path, **how).status_code for path in paths]


def test_beyond_the_limit_is_429_with_the_fields_and_the_record_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    events: list[Any] = []
    add_observer(events.append)
    client = limited().test_client()
    try:
        first, second, third = (client.get("/few", buffered=True) for _ in range(3))
    finally:
        remove_observer(events.append)
    assert [answer.headers["X-RateLimit-Remaining"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert (third.status_code, third.headers["Retry-After"], third.json["status"]) == (429, "60", 429)
    assert "Retry-After" not in second.headers
    assert RequestRefused("rate_limit", "few", "127.0.0.1") in events
    assert [record["route"] for record in request_records(caplog)] == ["/few"] * 3
    last = request_records(caplog)[-1]
    assert (last["refused_by"], last["refused_rule"], last["refused_value"]) == (
        "rate_limit",
        "few",
        "2 in 60 s",
    )


def test_the_record_names_the_user_of_the_framework(caplog: pytest.LogCaptureFixture) -> None:
    app = made()

    @app.get("/in")
    def sign_in() -> str:
        session["user_id"] = "u7"
        return ""

    @app.get("/page")
    def page() -> str:
        return ""

    caplog.set_level(logging.INFO, "mks_hardening.request")
    client = app.test_client()
    for path in ("/page", "/in", "/page"):
        client.get(path, buffered=True, headers={"User-Agent": "Firefox/140.0"})
    said = request_records(caplog)
    assert [one.get("user_id") for one in said] == [None, "u7", "u7"]
    assert {one["user_agent"] for one in said} == {"Firefox/140.0"}


def test_users_and_clients_are_counted_apart() -> None:
    app = limited()
    alice, bob, nobody = (app.test_client() for _ in range(3))
    alice.get("/sign-in/alice")
    bob.get("/sign-in/bob")
    again = app.test_client()
    again.get("/sign-in/alice")
    assert statuses(alice, "/few") + statuses(again, "/few", "/few") == [200, 200, 429]
    assert statuses(bob, "/few") + statuses(nobody, "/few", "/few", "/few") == [200, 200, 200, 429]
    elsewhere = {"environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert statuses(nobody, "/few", **elsewhere) == [200]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"exempt": lambda: request.args.get("free") == "1"}, [200, 200, 200, 200, 429]),
        ({"key": lambda: None}, [200] * 5),
        ({"key": lambda: request.args.get("free", "0")}, [200, 200, 200, 200, 429]),
        ({"key": lambda: 7}, [200, 200, 429, 429, 429]),
        ({"key": lambda: UUID(int=int(request.args.get("free", "0")))}, [200, 200, 200, 200, 429]),
        ({"key": lambda: [7]}, [200, 200, 429, 429, 429]),
        ({"cost": 2}, [200, 429, 429, 429, 429]),
        ({"methods": ["post"]}, [200] * 5),
        ({"methods": ["get"]}, [200, 200, 429, 429, 429]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_who_is_counted_and_what_it_costs(how: dict[str, Any], expected: list[int]) -> None:
    client = limited(**how).test_client()
    assert statuses(client, "/few", "/few?free=1", "/few", "/few?free=1", "/few") == expected


def test_a_view_keeps_its_own_fields_and_several_limits_tell_the_tightest() -> None:
    app = made(groups={"few": "2 per minute", "many": "9 per minute"})

    @app.get("/own")
    @limit("few")
    def own() -> Response:
        return Response("", headers={"X-RateLimit-Limit": "1000"})

    @app.get("/both")
    @limit("many")
    @limit("few")
    def both() -> str:
        return ""

    client = app.test_client()
    assert client.get("/own").headers.getlist("X-RateLimit-Limit") == ["1000"]
    assert client.get("/both").headers["X-RateLimit-Limit"] == "2"


def test_blueprints_and_applications_can_be_limited_and_views_exempted() -> None:
    app = made(groups={"few": "1 per minute"})
    api = limit("few")(Blueprint("api", __name__, url_prefix="/api"))

    @api.get("/a")
    def a() -> str:
        return ""

    @api.get("/b")
    @exempt
    def b() -> str:
        return ""

    app.register_blueprint(api)
    app.add_url_rule("/outside", view_func=lambda: "", endpoint="outside")
    client = app.test_client()
    assert statuses(client, "/api/a", "/api/a", "/api/b", "/api/b", "/outside", "/api/none") == [
        200,
        429,
        200,
        200,
        200,
        404,
    ]
    whole = limit("few")(made(groups={"few": "1 per minute"}))
    whole.add_url_rule("/x", view_func=lambda: "", endpoint="x")
    assert statuses(whole.test_client(), "/static/none.css", "/static/none.css", "/x", "/x") == [
        404,
        404,
        200,
        429,
    ]


def test_class_based_and_async_views_can_be_limited() -> None:
    app = made(groups={"few": "1 per minute"})

    class Page(MethodView):
        init_every_request = False
        decorators = (limit("few"),)

        def get(self) -> str:
            return "page"

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    assert statuses(app.test_client(), "/page", "/page") == [200, 429]


def test_a_refusal_can_be_worded_by_the_application() -> None:
    app = limited()
    app.errorhandler(429)(lambda error: (f"slowly: {error.retry_after}", 429))
    client = app.test_client()
    statuses(client, "/few", "/few")
    answer = client.get("/few")
    assert (answer.text, answer.headers["Retry-After"]) == ("slowly: 60", "60")


def test_a_limit_inside_a_service_is_a_429_too() -> None:
    limiter = RateLimiter({"few": "1 per minute"})
    app = made(limiter=limiter)
    work = limiter.limit("few", key=lambda: "all")(lambda: "done")
    app.add_url_rule("/work", view_func=work, endpoint="work")
    client = app.test_client()
    assert client.get("/work").text == "done"
    answer = client.get("/work")
    assert (answer.status_code, answer.headers["Retry-After"], answer.content_type) == (
        429,
        "60",
        "application/problem+json",
    )
    assert RateLimitExceededError.__name__ not in answer.text


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_slots_and_turns_that_are_taken_are_a_503(kind: str) -> None:
    slots = ConcurrencyLimiter({"export": 1})
    limiter = RateLimiter({"mail": "1 per minute"}, clock=FrozenClock())

    def work() -> str:
        return f"{slots.held('export', 'u')} held"

    async def work_async() -> str:
        return work()

    app = made(limiter=limiter)
    view = slots.limit("export", key=lambda: "u")(work if kind == "def" else work_async)  # type: ignore[type-var]
    app.add_url_rule("/export", view_func=view, endpoint="export")
    app.add_url_rule(
        "/mail", view_func=lambda: f"{limiter.pace('mail', timeout=20).wait():.0f}", endpoint="mail"
    )
    client = app.test_client()
    with slots.hold("export", "u"):
        answer = client.get("/export")
        assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) >= 1
        assert ConcurrencyExceededError.__name__ not in answer.text
    assert [client.get("/export").text for _ in range(3)] == ["1 held"] * 3
    assert slots.held("export", "u") == 0
    assert client.get("/mail").text == "0"
    answer = client.get("/mail")
    assert (answer.status_code, answer.headers["Retry-After"]) == (
        503,
        "40",
    )  # in a minute, less what it may wait


# --- errors


def failing() -> Flask:
    app = made()
    fields = [("WWW-Authenticate", 'Bearer realm="x"')]

    @app.get("/<what>")
    def fail(what: str) -> str:
        if what == "own":
            abort(Response("mine", 418))
        if what == "401":
            raise Unauthorized("who are you?", www_authenticate=None, response=None)
        if what == "503":
            raise BackendUnavailableError("cache", "refused", operation="get", retry_after=3)
        if what == "broken":
            raise RuntimeError("a secret")
        abort(int(what), description="said by the view")
        raise AssertionError(fields)

    return app


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/400", 400, "said by the view"),
        ("/401", 401, "who are you?"),
        ("/503", 503, "unavailable"),
        ("/broken", 500, "internal error"),
        ("/a/b/c", 404, "not found"),
    ],
)
def test_errors_are_problem_documents_for_programs(path: str, status: int, detail: str) -> None:
    answer = failing().test_client().get(path)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    problem = json.loads(answer.text)
    assert (problem["type"], problem["status"], problem["request_id"]) == (
        "about:blank",
        status,
        answer.headers["X-Request-ID"],
    )
    assert detail in problem["detail"]
    assert "secret" not in answer.text
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("no-store", "Accept")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_record_of_an_outage_says_what_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    failing().test_client().get("/503").close()
    assert "application rule backend (cache is unavailable (refused) during get)" in caplog.messages[-1]


def test_errors_are_pages_for_browsers_and_own_answers_stay() -> None:
    client = failing().test_client()
    assert "<h1>Bad Request</h1>" in client.get("/400", headers=HTML).text
    assert client.get("/own").text == "mine"
    assert client.get("/503", headers=HTML).headers["Retry-After"] == "3"


def test_a_handler_for_everything_words_errors_of_http_too() -> None:
    """As in Flask alone, where it is asked for each exception that has no handler of its own."""
    early, late = Flask("early"), made()
    early.errorhandler(Exception)(lambda error: (f"mine: {type(error).__name__}", 418))
    Hardening(early, settings_of())
    late.errorhandler(Exception)(lambda error: (f"mine: {type(error).__name__}", 418))
    for app in (early, late):
        answer = app.test_client().get("/absent")
        assert (answer.status_code, answer.text) == (418, "mine: NotFound")


def test_fields_of_errors_stay() -> None:
    app = made()
    app.add_url_rule("/only", view_func=lambda: "", endpoint="only")
    app.add_url_rule("/folder/", view_func=lambda: "", endpoint="folder")
    client = app.test_client()
    answer = client.post("/only")
    assert (answer.status_code, answer.headers["Allow"]) == (
        405,
        "HEAD, OPTIONS, GET",
    ) or "GET" in answer.headers["Allow"]
    assert answer.content_type == "application/problem+json"
    moved = client.get("/folder")
    assert (moved.status_code, moved.headers["Location"]) == (308, "http://localhost/folder/")


def test_handlers_of_the_application_win_whenever_they_come() -> None:
    early = Flask(__name__)
    early.errorhandler(404)(lambda error: ("mine", 404))
    Hardening(early, settings_of())
    late = made()
    late.errorhandler(404)(lambda error: ("mine", 404))
    for app in (early, late):
        assert app.test_client().get("/none").text == "mine"


# --- the request at hand


def test_views_and_templates_have_what_the_wrappers_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    app = made(headers=HeaderPolicy.web(csp=HeaderPolicy.strict().csp))
    seen: list[Any] = []
    app.before_request(lambda: seen.append(g.request_id))
    page = "{% macro form() %}{{ current_csrf_token() }}{% endmacro %}{{ csp_nonce() }} {{ form() }}"
    app.add_url_rule("/item/<int:n>", view_func=lambda n: render_template_string(page), endpoint="item")
    answer = app.test_client().get("/item/7", buffered=True)
    nonce, token = answer.text.split()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert f"'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
    assert seen == [answer.headers["X-Request-ID"]]
    assert request_records(caplog)[-1]["route"] == "/item/<int:n>"
    with app.test_request_context("/"):
        assert render_template_string(page) == " "


def test_a_form_with_the_token_is_accepted_and_without_refused() -> None:
    app = made()
    app.add_url_rule(
        "/form", view_func=lambda: render_template_string("{{ current_csrf_token() }}"), endpoint="form"
    )
    app.add_url_rule("/send", view_func=lambda: "sent", endpoint="send", methods=["POST"])
    client = app.test_client()
    token = client.get("/form").text
    assert client.post("/send", data={"csrf_token": token}).text == "sent"
    assert client.post("/send", data={}).status_code == 403


def test_a_form_outlives_the_message_above_it() -> None:
    app = made()
    page = "{{ get_flashed_messages() }}|{{ current_csrf_token() }}"

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> Any:
        if request.method == "POST":
            flash("wrong password")
            return redirect("/sign-in")
        return render_template_string(page)

    client = app.test_client()
    for result in ("[]", "[&#39;wrong password&#39;]", "[&#39;wrong password&#39;]"):
        shown, token = client.get("/sign-in").text.split("|")
        assert shown == result
        assert client.post("/sign-in", data={"csrf_token": token}).status_code == 302


# --- many applications


def test_a_factory_makes_as_many_as_it_likes() -> None:
    hardening = Hardening(settings=settings_of())
    apps = [Flask(f"app{number}") for number in range(3)]
    parts = [hardening.init_app(app) for app in apps]
    assert len({id(part.store) for part in parts}) == 3
    assert all(app.test_client().get("/none").status_code == 404 for app in apps)
    for part in parts:
        part.close()
        part.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKS_ENV", "development")
    app = Flask(__name__)
    Hardening(app)
    assert app.extensions["mks_hardening"].settings.core.environment == "development"


def test_a_mounted_application_shares_wrappers_and_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    api, main, store = Flask("api"), Flask("main"), MemorySessionStore()
    Hardening(api, settings_of(), store=store, mounted=True)
    main.add_url_rule("/in", view_func=lambda: current_session().start("alice") or "", endpoint="in")
    api.add_url_rule("/who/<x>", view_func=lambda x: str(current_session().user_id), endpoint="who")
    main.wsgi_app = DispatcherMiddleware(main.wsgi_app, {"/api": api})  # type: ignore[method-assign]
    Hardening(main, settings_of(), store=store)
    client = main.test_client()
    client.get("/in", buffered=True)
    assert client.get("/api/who/1", buffered=True).text == "alice"
    assert [record["route"] for record in request_records(caplog)] == ["/in", "/api/who/<x>"]
    alone = api.test_client()
    with alone.session_transaction() as kept:
        kept["user_id"] = "bob"
    assert alone.get("/who/1").text == "bob"


@pytest.mark.parametrize("order", ["inside", "outside"])
def test_wrappers_like_a_debugger_may_stand_on_either_side(order: str) -> None:
    app = Flask(__name__)
    if order == "inside":
        app.wsgi_app = DebuggedApplication(app.wsgi_app)  # type: ignore[method-assign]
    Hardening(app, settings_of())
    if order == "outside":
        app.wsgi_app = DebuggedApplication(app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/", view_func=lambda: g.request_id, endpoint="home")
    assert app.test_client().get("/").text


# --- bad use


def test_twice_is_once_too_often() -> None:
    app = made()
    with pytest.raises(ConfigurationError, match="hardened twice: call Hardening once"):
        Hardening(app, settings_of())


def other_extensions() -> dict[str, Any]:
    class Theirs:
        def __init__(self, module: str) -> None:
            self.module = module

        def __call__(self, app: Flask) -> None:
            def before() -> None:
                """What the extension runs before requests."""

            before.__module__ = self.module
            app.before_request_funcs.setdefault(None, []).append(before)

    def session_interface(app: Flask) -> None:
        own = {"__module__": "flask_session.redis"}
        app.session_interface = type("RedisSessionInterface", (SecureCookieSessionInterface,), own)()

    return {
        "two CSRF checks: remove SeaSurf": Theirs("flask_seasurf"),
        "two sessions at once: .*remove": session_interface,
    }


@pytest.mark.parametrize("message", other_extensions())
@pytest.mark.parametrize("when", ["before", "after"])
def test_another_extension_that_does_the_same_is_refused(message: str, when: str) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "", endpoint="home")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    install = other_extensions()[message]
    with pytest.raises(ConfigurationError, match=message):
        if when == "before":
            install(app)
        Hardening(app, settings_of())
        install(app)
        app.test_client().get("/")


def test_wrong_orders_of_wrapping_are_refused() -> None:
    app = made()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match=r"wrong order of middleware: ProxyFix.*MKS_TRUSTED_PROXIES"):
        app.test_client().get("/")
    app = made()
    app.wsgi_app = DispatcherMiddleware(Flask.wsgi_app.__get__(app))  # type: ignore[method-assign, attr-defined]
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ConfigurationError, match=r"replaced after Hardening; .*app.wsgi_app = Wrapper"):
        app.test_client().get("/")


def test_two_hardened_applications_in_each_other_are_refused() -> None:
    api, main = made(), Flask("main")
    main.wsgi_app = DispatcherMiddleware(main.wsgi_app, {"/api": api.wsgi_app})  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="two sources of the client's address"):
        Hardening(main, settings_of())
    main = made()
    stack = compose.harden_wsgi(partial(api.wsgi_app), settings_of())
    main.wsgi_app = stack  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match=r"two sessions at once.*mounted=True"):
        main.test_client().get("/")


def test_a_request_to_itself_with_a_copy_of_the_environ_keeps_all_decisions() -> None:
    app = made(groups={"few": "2 per minute"}, rate_limits=[RateLimitRule("few")])

    def again() -> Response:
        return Response.from_app(app, {**request.environ, "PATH_INFO": "/inner"})

    def start() -> str:
        session["user_id"] = "7"
        return ""

    app.add_url_rule("/start", view_func=start)
    app.add_url_rule("/again", view_func=again)
    app.add_url_rule("/inner", view_func=lambda: f"{g.request_id} {session['user_id']}", endpoint="inner")
    client = app.test_client()
    client.get("/start")
    answer = client.get("/again")
    assert (answer.status_code, answer.text) == (200, f"{answer.headers['X-Request-ID']} 7")
    assert answer.headers.getlist("X-Request-ID") == [answer.headers["X-Request-ID"]]
    assert client.get("/again").status_code == 429, "each request of the client counts once"


def test_a_limit_without_its_group_is_refused_with_the_line_that_defines_it() -> None:
    app = made()
    with pytest.raises(
        ConfigurationError, match=r"view 'x': .*Hardening\(app, settings, groups=\{'nope': '5 per"
    ):
        app.add_url_rule("/x", view_func=limit("nope")(lambda: ""), endpoint="x")
    early = Flask(__name__)
    early.add_url_rule("/x", view_func=limit("nope")(lambda: ""), endpoint="x")
    with pytest.raises(ConfigurationError, match="view 'x'"):
        Hardening(early, settings_of())
    Hardening(early, settings_of(), groups={"nope": "5 per minute"})  # the fault has changed nothing
    whole = limit("nope")(made())
    whole.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ConfigurationError, match=r"before_request.*groups=\{'nope'"):
        whole.test_client().get("/")
    with pytest.raises(ConfigurationError, match=r'@limit\("auth_login"\)'):
        limit("")
    with pytest.raises(ConfigurationError, match="not both") as caught:
        made(limiter=RateLimiter({"few": "1 per minute"}), groups={"few": "1 per minute"})
    assert caught.value.parameter == "groups"


def test_a_limit_without_hardening_is_told() -> None:
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule("/x", view_func=limit("few")(lambda: ""), endpoint="x")
    with pytest.raises(ConfigurationError, match=r"not hardened: call Hardening\(app, settings\)"):
        app.test_client().get("/x")


def test_rules_at_the_edge_share_the_limiter() -> None:
    app = made(groups={"few": "1 per minute"}, rate_limits=[RateLimitRule("few", path="/x")])
    app.add_url_rule("/x", view_func=lambda: "", endpoint="x")
    assert statuses(app.test_client(), "/x", "/x") == [200, 429]


# --- the command line


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    done = app.test_cli_runner().invoke(args=["mks", *arguments])
    return done.exit_code, done.output


def test_check_says_what_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    app = made()
    assert run(app, "check") == (
        0,
        "MKS-FLASK-001 warning: MKS_ENV=development serves this machine only: MKS_ENV=production\n",
    )
    app.config.update(SESSION_COOKIE_SAMESITE="Strict", PERMANENT_SESSION_LIFETIME=60)
    monkeypatch.setenv("FLASK_DEBUG", "1")
    status, text = run(app, "check")
    assert (status, [line.split()[0] for line in text.splitlines()]) == (
        1,
        ["MKS-FLASK-001", "MKS-FLASK-004", "MKS-FLASK-005", "MKS-FLASK-006"],
    )
    monkeypatch.setenv("FLASK_DEBUG", "0")
    fine = Flask(__name__)
    Hardening(fine, HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "a.example.com"}))
    assert run(fine, "check") == (0, "no problems found\n")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    status, text = run(fine, "check")
    assert (status, "pip install 'mks-hardening[check]'" in text) == (1, True)


def test_sessions_are_listed_and_ended() -> None:
    site = Site()
    site.visit(lambda: current_session().start("alice"))
    status, text = run(site.app, "sessions", "alice")
    assert (status, len(text.splitlines())) == (0, 1)
    assert str(site.cookie) not in text
    assert run(site.app, "sessions", "alice", "--end")[1].endswith("1 ended\n")
    assert run(site.app, "sessions", "alice") == (0, "no active session\n")


@pytest.mark.parametrize(
    ("whom", "key"),
    [
        (["--user", "alice"], "user:alice"),
        (["--client", "198.51.100.7"], "client:198.51.100.7"),
        (["--client", "2001:db8::1"], "client:2001:db8::/64"),
        (["--key", "k"], "k"),
    ],
)
def test_who_was_locked_out_can_be_let_in(whom: list[str], key: str) -> None:
    app = made(groups={"few": "1 per minute"})
    limiter = app.extensions["mks_hardening"].limiter
    assert limiter.hit("few", key)
    assert not limiter.hit("few", key)
    assert run(app, "unlock", "--group", "few", *whom) == (0, f"few: {key} was reset\n")
    assert limiter.hit("few", key)


class ClearText:
    """Passwords as they are: nobody waits for hashes here."""

    def verify(self, password: str, stored: str | None, /) -> bool:
        return password == stored

    def hash(self, password: str, /) -> str:
        return password

    def needs_rehash(self, stored: str, /) -> bool:
        return False


class Alice:
    """The only account there is."""

    def __init__(self) -> None:
        self.account = SignInAccount(user_id="alice", password_hash="right and long enough")

    def find(self, name: str, /) -> SignInAccount:
        return self.account

    def get(self, user_id: str, /) -> SignInAccount:
        return self.account

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        return True


def test_a_locked_account_can_be_let_in() -> None:
    site, notices = Site(), list[SignInNotice]()
    site.visit(lambda: current_session().start("alice"))
    site.parts.sign_in = sign_in = SignIn(
        Alice(),
        store=MemorySignInStore(),
        limiter=RateLimiter(SIGN_IN_LIMITS),
        factors=None,
        passwords=ClearText(),
        end_sessions=site.parts.sessions.end_user,
        on_notice=notices.append,
    )
    assert "--reason TEXT" in run(site.app, "unlock", "--account", "alice")[1]
    for number in range(55):
        sign_in.password("alice", "wrong", client=SignInClient(address=f"198.51.100.{number}"))
    right = "right and long enough"
    assert not sign_in.password("alice", right, client=SignInClient(address="203.0.113.9"))
    how = ["unlock", "--account", "alice", "--reason", "called back", "--end-sessions"]
    assert run(site.app, *how) == (0, "alice: unlocked\n")
    assert (notices[-1].reason, notices[-1].actor) == ("called back", "flask mks unlock")
    assert site.parts.sessions.sessions("alice") == []
    assert run(site.app, *how) == (0, "alice: was not locked\n")


def sign_in_of(parts: Installed) -> SignIn:
    return SignIn(
        Alice(),
        store=MemorySignInStore(),
        limiter=RateLimiter(SIGN_IN_LIMITS),
        factors=None,
        passwords=ClearText(),
        end_sessions=parts.sessions.end_user,
    )


def test_a_sign_in_is_given_or_made_from_what_the_application_has() -> None:
    how = ["unlock", "--account", "alice", "--reason", "called back"]
    given = sign_in_of(made().extensions["mks_hardening"])
    for sign_in in (given, sign_in_of):
        app = made(sign_in=sign_in)
        assert run(app, *how) == (0, "alice: was not locked\n")
    assert made(sign_in=given).extensions["mks_hardening"].sign_in is given


def test_commands_explain_what_they_need() -> None:
    app = made()
    assert "USER is missing" in run(app, "sessions", "")[1]
    assert run(app, "sessions", "nobody") == (0, "no active session\n")
    assert "give --account NAME" in run(app, "unlock")[1]
    assert "give --account NAME" in run(app, "unlock", "--group", "auth_login")[1]
    assert "nope" in run(app, "unlock", "--group", "nope", "--user", "alice")[1]
    assert "sign_in=SignIn(...)" in run(app, "unlock", "--account", "alice")[1]
    assert "MKS_REDIS_URL" in run(app, "env")[1]

    class Hits:
        def hit(self, group: str, key: str, *, cost: int = 1) -> Any:
            raise NotImplementedError

    assert "cannot reset counters" in run(made(limiter=Hits()), "unlock", "--group", "g", "--user", "a")[1]
