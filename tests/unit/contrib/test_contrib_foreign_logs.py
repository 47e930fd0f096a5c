"""structlog, loguru and Sentry with our encoder and redaction: real libraries, and no secret in what they send."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.contrib.loguru_sink import LoguruSink
from mks_hardening.contrib.sentry_redaction import SentryRedaction
from mks_hardening.contrib.structlog_renderer import StructlogRenderer
from mks_hardening.logging import REDACTED, JsonFormatter, bound

structlog = pytest.importorskip("structlog")
loguru = pytest.importorskip("loguru")
sentry_sdk = pytest.importorskip("sentry_sdk")

SECRET = "hunter2"


# --- structlog


@pytest.fixture
def records() -> Iterator[list[dict[str, Any]]]:
    """What structlog has written, as data."""
    stream = io.StringIO()

    class Told(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            assert SECRET not in stream.getvalue()
            return iter([json.loads(line) for line in stream.getvalue().splitlines()])

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, StructlogRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    yield Told()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_of_structlog_is_a_line_of_ours(records: list[dict[str, Any]]) -> None:
    structlog.contextvars.bind_contextvars(tenant="site 7")
    with bound(request_id="r1"):
        structlog.get_logger().warning("signed in with password=hunter2", user="tanaka", password=SECRET)
    (line,) = records
    stamp = line.pop("timestamp")
    assert stamp.endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "structlog",
        "message": "signed in with password=[REDACTED]",
        "user": "tanaka",
        "password": REDACTED,
        "tenant": "site 7",
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("debug", "DEBUG"),
        ("info", "INFO"),
        ("warn", "WARNING"),
        ("exception", "ERROR"),
        ("fatal", "CRITICAL"),
    ],
)
def test_levels_are_those_of_the_call(records: list[dict[str, Any]], method: str, level: str) -> None:
    getattr(structlog.get_logger(), method)("x")
    assert [line["level"] for line in records] == [level]


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("level", ["high", 3, "", Unspeakable()])
def test_a_field_named_level_is_no_level(level: object) -> None:
    line = json.loads(str(StructlogRenderer()(None, "info", {"event": "the pump", "level": level})))
    assert line["level"] == "INFO"
    assert "extra_level" in line
    added = json.loads(str(StructlogRenderer()(None, "warn", {"event": "the pump", "level": "warning"})))
    assert (added["level"], "extra_level" in added) == ("WARNING", False)


def parts(error: Exception) -> tuple[object, ...]:
    return type(error), error, error.__traceback__


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("exception", lambda _: {}),
        ("error", lambda _: {"exc_info": True}),
        ("error", lambda error: {"exc_info": error}),
        ("error", lambda error: {"exc_info": parts(error)}),
    ],
)
def test_exceptions_are_ours_however_they_are_given(
    records: list[dict[str, Any]], method: str, given: Callable[[Exception], dict[str, Any]]
) -> None:
    try:
        int("password=hunter2")
    except ValueError as error:
        getattr(structlog.get_logger(), method)("failed", **given(error))
    (line,) = records
    assert line["exception"]["type"] == "ValueError"
    assert "ValueError" in line["exception"]["text"]


def test_an_exception_that_is_text_already_is_cleaned(records: list[dict[str, Any]]) -> None:
    structlog.get_logger().info("failed", exception="Traceback\nValueError: password=hunter2")
    (line,) = records
    assert line["exception"]["text"] == "Traceback\nValueError: password=[REDACTED]"


def test_awkward_fields_break_nothing(records: list[dict[str, Any]]) -> None:
    structlog.get_logger().info(
        {"a": 1}, name="a field", args=(1,), msg="m", timestamp="old", process=object, logger="knowledge"
    )
    structlog.get_logger().info("100 %s", number=float("nan"), text="\ud800", nested={"api_key": SECRET})
    first, second = records
    assert first["logger"] == "knowledge"
    assert (first["extra_name"], first["extra_args"], first["extra_msg"]) == ("a field", [1], "m")
    assert first["timestamp"] != "old"
    assert second["message"] == "100 %s"
    assert second["nested"] == {"api_key": REDACTED}


def test_bytes_for_the_quick_logger_and_other_schemas() -> None:
    line = StructlogRenderer(as_bytes=True, schema="ecs")(None, "info", {"event": "x"})
    assert isinstance(line, bytes)
    assert json.loads(line)["log.level"] == "info"


def test_structlog_over_logging_keeps_names(records: list[dict[str, Any]]) -> None:
    render = StructlogRenderer()
    line = render(logging.getLogger("knowledge"), "info", {"event": "x", "stack": "Stack: password=hunter2"})
    assert json.loads(line)["logger"] == "knowledge"
    assert SECRET not in str(line)


# --- loguru


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What handlers of ``logging`` have written of what loguru logged."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG)
    loguru.logger.configure(handlers=[{"sink": LoguruSink(), "format": "{message}", "level": 0}])
    yield stream
    assert SECRET not in stream.getvalue()
    loguru.logger.remove()
    root.removeHandler(handler)
    root.setLevel(before)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_message_of_loguru_goes_through_our_handlers(written: io.StringIO) -> None:
    with bound(request_id="r1"):
        loguru.logger.bind(user="tanaka", token=SECRET, name="a field").success("password={}", SECRET)
    (line,) = lines(written)
    assert line["level"] == "SUCCESS"
    assert line["logger"] == __name__
    assert line["message"] == "password=[REDACTED]"
    assert (line["user"], line["token"], line["extra_name"]) == ("tanaka", REDACTED, "a field")
    assert line["request_id"] == "r1"


def test_variables_that_loguru_would_show_do_not_appear(written: io.StringIO) -> None:
    def sign_in(code: str) -> None:
        raise ValueError("wrong")

    try:
        sign_in(SECRET)
    except ValueError:
        loguru.logger.opt(exception=True).error("failed")
    (line,) = lines(written)
    assert line["exception"]["type"] == "ValueError"
    assert line["exception"]["stack"][-1]["function"] == "sign_in"


def test_levels_of_logging_hold(written: io.StringIO) -> None:
    logger = logging.getLogger(__name__)
    logger.setLevel(logging.ERROR)
    try:
        loguru.logger.info("quiet")
        loguru.logger.error("loud")
    finally:
        logger.setLevel(logging.NOTSET)
    assert [line["message"] for line in lines(written)] == ["loud"]


def test_a_handler_that_sends_everything_to_loguru_makes_no_circle(written: io.StringIO) -> None:
    class ToLoguru(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loguru.logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())

    back = ToLoguru()
    logging.getLogger().addHandler(back)
    try:
        loguru.logger.info("once")
    finally:
        logging.getLogger().removeHandler(back)
    assert [line["message"] for line in lines(written)] == ["once"]


def test_a_handler_of_ones_own() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(filename)s %(funcName)s: %(message)s"))
    identity = loguru.logger.add(LoguruSink(handler), format="{message}")
    try:
        loguru.logger.log("INFO", "{} of {}", 1, 2)
    finally:
        loguru.logger.remove(identity)
    caller = f"{Path(__file__).name} test_a_handler_of_ones_own"
    assert stream.getvalue() == f"INFO {caller}: 1 of 2\n"


def test_named_arguments_that_are_secret_are_taken_out_of_the_message_of_loguru() -> None:
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    number = loguru.logger.add(LoguruSink(Kept()), format="{message}")
    try:
        loguru.logger.info(
            "{user} signed in with {password}", user="tanaka", password="correct horse battery"
        )
        loguru.logger.info("{pin} of 17", pin=1)
    finally:
        loguru.logger.remove(number)
    assert [record.getMessage() for record in records] == [
        "tanaka signed in with [REDACTED]",
        "[REDACTED] of 17",
    ]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The messages as a handler gets them from the sink, not yet redacted as text."""
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    number = loguru.logger.add(LoguruSink(Kept()), format="{message}")
    yield messages
    loguru.logger.remove(number)


LABELLED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("password={}", ("correct horse",), {}, "password=[REDACTED]"),
    ("password: {!r} of {}", ("correct horse", "tanaka"), {}, "password: [REDACTED] of tanaka"),
    ("{} signed in with password {}", ("tanaka", "a"), {}, "tanaka signed in with password [REDACTED]"),
    ("token {0} of {1}, {0}", ("a b", "tanaka"), {}, "token [REDACTED] of tanaka, a b"),
    ("secret={0[key]} of {1.real}", ({"key": "a b"}, 7), {}, "secret=[REDACTED] of 7"),
    ("password={:>{}} of {:<{}}|", ("a b", 9, "tanaka", 8), {}, "password=[REDACTED] of tanaka  |"),
    ("password={} of {user}", ("a b",), {"user": "tanaka"}, "password=[REDACTED] of tanaka"),
    ("api_key={key} of {}", ("tanaka",), {"key": "a b"}, "api_key=[REDACTED] of tanaka"),
    ("パスワードは{}", ("correct horse",), {}, "パスワードは[REDACTED]"),
    ("{} {}", ("tanaka", 7), {}, "tanaka 7"),
    ("{} of {{}} password", ("tanaka",), {}, "tanaka of {} password"),
    ("password={}", (), {}, "password={}"),
    ("password policy {} holds", ("strict",), {}, "password policy strict holds"),
]


@pytest.mark.parametrize(("template", "args", "kwargs", "shown"), LABELLED)
def test_arguments_behind_a_secret_label_are_taken_out_of_the_message_of_loguru(
    said: list[str], template: str, args: tuple[Any, ...], kwargs: dict[str, Any], shown: str
) -> None:
    loguru.logger.info(template, *args, **kwargs)
    assert said == [shown]


def test_options_of_loguru_hide_no_label(said: list[str]) -> None:
    logger = loguru.logger
    logger.opt(lazy=True).info("password={}", lambda: "correct horse")
    logger.opt(record=True).info("{record[level].name} password={}", "correct horse")
    logger.opt(colors=True).info("<red>password</red>={} of {}", "correct horse", "tanaka")
    logger.patch(lambda record: record.update(message=record["message"] + "!")).info("pin={}", "12 34")
    logger.opt(raw=True).info("password={}", "correct horse")
    assert said == [
        "password=[REDACTED]",
        "INFO password=[REDACTED]",
        "password=[REDACTED] of tanaka",
        "pin=[REDACTED]!",
        "password=[REDACTED]",
    ]


def test_an_argument_that_cannot_be_formatted_twice_is_not_shown(said: list[str]) -> None:
    class Once:
        def __init__(self) -> None:
            self.left = 1

        def __str__(self) -> str:
            self.left -= 1
            if self.left < 0:
                raise ValueError
            return "correct horse"

    loguru.logger.log("INFO", "password={}", Once())
    assert said == ["password=[REDACTED]"]


def test_a_message_from_a_queue_has_no_template(said: list[str]) -> None:
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(JsonFormatter().format(record))

    number = loguru.logger.add(LoguruSink(Kept()), format="{message}", enqueue=True)
    loguru.logger.log("INFO", "password={} of {}", SECRET, "tanaka")
    loguru.logger.complete()
    loguru.logger.remove(number)
    (line,) = messages
    assert json.loads(line)["message"] == "password=[REDACTED] of tanaka"


# --- Sentry


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Every event that the SDK has given to its transport."""
    events: list[dict[str, Any]] = []

    class Kept(sentry_sdk.transport.Transport):  # type: ignore[misc, name-defined]  # known at run time
        def capture_envelope(self, envelope: Any) -> None:
            events.extend(item.payload.json for item in envelope.items if item.payload.json)

    clean = SentryRedaction()
    client = sentry_sdk.Client(
        dsn="http://key@127.0.0.1:9/1",
        transport=Kept,
        before_send=clean,
        before_send_transaction=clean,
        before_breadcrumb=clean,
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=True,
        traces_sample_rate=1.0,
    )
    scope = sentry_sdk.get_global_scope()
    scope.set_client(client)
    yield events
    scope.set_client(None)
    client.close(timeout=0)


def test_an_error_reaches_sentry_without_secrets(sent: list[dict[str, Any]]) -> None:
    def sign_in(password: str) -> None:
        nested = {"deep": {"api_key": SECRET}}
        raise ValueError(f"password={password} of {len(nested)}")

    with sentry_sdk.isolation_scope() as scope:
        scope.set_user({"id": "tanaka"})
        scope.set_extra("headers", {"Authorization": f"Bearer {SECRET}", "Accept": "text/html"})
        scope.set_context("form", {"inner": {"password": SECRET}})
        sentry_sdk.add_breadcrumb(message=f"sent password={SECRET}", data={"token": SECRET})
        try:
            sign_in(SECRET)
        except ValueError as error:
            event_id = sentry_sdk.capture_exception(error)
    (event,) = sent
    assert SECRET not in json.dumps(event)
    assert event["event_id"] == event_id
    assert event["user"] == {"id": "tanaka"}
    assert event["extra"]["headers"]["Accept"] == "text/html"
    (error,) = event["exception"]["values"]
    assert error["type"] == "ValueError"
    assert error["stacktrace"]["frames"][-1]["function"] == "sign_in"
    assert len(event["contexts"]["trace"]["trace_id"]) == 32


def _with_note(error: Exception) -> Exception:
    error.add_note("while row 3 was imported")
    return error


class _DetailError(Exception):
    """An exception with the attribute that the SDK prefers to its text."""

    detail = ""


def _with_detail(error: _DetailError) -> Exception:
    error.detail = str(error)
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("password=%s", SECRET), "('password=[REDACTED]',)"),
        (_with_note(ValueError("password=%s", SECRET)), "('password=[REDACTED]',)\nwhile row 3 was imported"),
        (_with_note(ExceptionGroup("many", [_with_note(ValueError("password=%s", SECRET))])), None),
        (_with_detail(_DetailError("password=%s", SECRET)), "('password=[REDACTED]',)"),
    ],
    ids=["alone", "note", "group", "detail"],
)
def test_what_the_sdk_adds_to_an_exception_hides_no_secret(
    sent: list[dict[str, Any]], error: Exception, text: str | None
) -> None:
    sentry_sdk.capture_exception(error)
    (event,) = sent
    assert SECRET not in json.dumps(event)
    values = [one["value"] for one in event["exception"]["values"]]
    if text is not None:
        assert values == [text]
    assert all("while row 3 was imported" in value for value in values if hasattr(error, "__notes__"))


PHRASE = "correct horse battery"


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What an SDK set up as documented has sent: events with their breadcrumbs, and entries of its own logs."""
    from sentry_sdk import integrations
    from sentry_sdk.integrations.logging import LoggingIntegration

    # It wraps every logger of the process, once and for good: put back, and wrapped anew by the next test.
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    for name in ("_processed_integrations", "_installed_integrations"):
        monkeypatch.setattr(integrations, name, set())

    payloads: list[dict[str, Any]] = []

    class Kept(sentry_sdk.transport.Transport):  # type: ignore[misc, name-defined]  # known at run time
        def capture_envelope(self, envelope: Any) -> None:
            payloads.extend(item.payload.json for item in envelope.items if item.payload.json)

    clean = SentryRedaction()
    client = sentry_sdk.Client(
        dsn="http://key@127.0.0.1:9/1",
        transport=Kept,
        before_send=clean,
        before_send_transaction=clean,
        before_breadcrumb=clean,
        before_send_log=clean,
        enable_logs=True,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration()],
    )
    scope = sentry_sdk.get_global_scope()
    scope.set_client(client)

    def sent() -> list[dict[str, Any]]:
        client.flush(timeout=5)
        entries = [payload.get("items", [payload]) for payload in payloads]
        text = json.dumps(payloads)
        assert SECRET not in text
        assert "horse" not in text
        assert "battery" not in text
        return [entry for several in entries for entry in several]

    with sentry_sdk.isolation_scope():
        yield sent
    scope.set_client(None)
    client.close(timeout=0)


@pytest.mark.parametrize(
    ("template", "args", "shown"),
    [
        ("password=%s", (SECRET,), "password=[REDACTED]"),
        ("sign-in of %s with password %s", ("tanaka", PHRASE), "sign-in of tanaka with password [REDACTED]"),
        ("token: %r", (PHRASE,), "token: [REDACTED]"),
        (
            "api_key=%(value)s of %(user)s",
            ({"value": PHRASE, "user": "tanaka"},),
            "api_key=[REDACTED] of tanaka",
        ),
        ("%(password)s of %(user)s", ({"password": PHRASE, "user": "tanaka"},), "[REDACTED] of tanaka"),
        ("x" * 2_000 + " password=%s", (PHRASE,), "x" * 2_000 + " password=[REDACTED]"),
        (f"password={SECRET}", (), "password=[REDACTED]"),
        ("100%% of %s with secret=%s", ("tanaka", PHRASE), "100% of tanaka with secret=[REDACTED]"),
    ],
)
def test_arguments_of_a_log_call_reach_sentry_without_secrets(
    reported: Callable[[], list[dict[str, Any]]], template: str, args: tuple[Any, ...], shown: str
) -> None:
    logging.getLogger("app.sentry").warning(template, *args)  # a breadcrumb and an entry of the logs
    logging.getLogger("app.sentry").error(template, *args)  # an event
    (event,) = [one for one in reported() if "event_id" in one]
    assert event["logentry"]["formatted"] == shown
    assert event["breadcrumbs"]["values"][-1]["message"] == shown
    logs = [one for one in reported() if "body" in one]
    assert [log["body"] for log in logs] == [shown, shown]


def test_the_sentry_logger_sends_no_secret(reported: Callable[[], list[dict[str, Any]]]) -> None:
    from sentry_sdk import logger

    logger.error("password={value} of {user}", value=PHRASE, user="tanaka")
    logger.error("signed in with {token}", token=PHRASE)
    logger.error("signed in", attributes={"api_key": PHRASE})
    bodies = [entry["body"] for entry in reported()]
    assert bodies == ["password=[REDACTED] of tanaka", "signed in with [REDACTED]", "signed in"]


def test_an_exception_raised_like_a_log_call_reaches_sentry_without_its_arguments(
    reported: Callable[[], list[dict[str, Any]]],
) -> None:
    def sign_in() -> None:
        raise ExceptionGroup("two", [LookupError("token=%s", PHRASE)]) from ValueError(
            "password=%s of %s", PHRASE, "tanaka"
        )

    try:
        sign_in()
    except ExceptionGroup:
        sentry_sdk.capture_exception()
    (event,) = reported()
    assert "('password=[REDACTED] of %s', 'tanaka')" in [one["value"] for one in event["exception"]["values"]]


def test_what_loguru_has_formatted_reaches_sentry_without_secrets(
    reported: Callable[[], list[dict[str, Any]]],
) -> None:
    from sentry_sdk.integrations.logging import EventHandler

    logger = loguru.logger
    number = logger.add(EventHandler(), level="ERROR", format="{message}")
    try:
        logger.error("signed in with {password}", password=PHRASE)
    finally:
        logger.remove(number)
    (event,) = [one for one in reported() if "event_id" in one]
    assert event["logentry"]["formatted"].startswith("signed in with [REDACTED]")


def test_a_log_that_cannot_be_cleaned_is_sent_empty() -> None:
    class Broken:
        def redact(self, _: object) -> object:
            raise RecursionError

        def redact_text(self, text: str) -> str:
            return text

    log = {"body": SECRET, "attributes": {"a": SECRET}, "severity_text": "error", "trace_id": None}
    assert SentryRedaction(Broken())(log) == {
        "body": "an event that could not be cleaned (RecursionError)",
        "attributes": {},
        "severity_text": "error",
    }


def test_what_holds_no_secret_stays_as_it_is(sent: list[dict[str, Any]]) -> None:
    sentry_sdk.capture_message("the crane does not answer", level="warning")
    with sentry_sdk.start_transaction(name="GET /articles/<id>", op="http.server"):
        pass
    message, transaction = sent
    assert SentryRedaction()(message) == message
    assert SentryRedaction()(transaction) == transaction
    assert message["message"] == "the crane does not answer"


def test_urls_and_queries_of_the_request() -> None:
    event = {
        "request": {
            "url": "https://tanaka:hunter2@example.com/articles?page=2&token=hunter2",
            "query_string": "page=2&token=hunter2",
            "cookies": {"mks_session": SECRET},
            "data": {"password": SECRET, "title": "x"},
        }
    }
    before = json.dumps(event)
    clean = SentryRedaction()(event)
    assert SECRET not in json.dumps(clean["request"]["url"])
    assert clean["request"]["query_string"].startswith("page=2&token=")
    assert SECRET not in json.dumps({**clean["request"], "cookies": None})
    assert clean["request"]["data"]["title"] == "x"
    assert json.dumps(event) == before


def test_what_cannot_be_cleaned_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def redact(self, _: object) -> object:
            raise RecursionError

        def redact_text(self, text: str) -> str:
            return text

    event = {"event_id": "e" * 32, "level": "error", "message": SECRET, "extra": {"a": SECRET}}
    assert SentryRedaction(Broken())(event) == {
        "event_id": "e" * 32,
        "level": "error",
        "message": "an event that could not be cleaned (RecursionError)",
    }
    assert [record.name for record in caplog.records] == ["mks_hardening.sentry"]
