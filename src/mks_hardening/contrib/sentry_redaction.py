"""Error reports to Sentry or GlitchTip without secrets: ``init_sentry``, or hooks for an SDK of your own.

``init_sentry(dsn)`` sends errors alone. If you call ``sentry_sdk.init`` yourself, use the same object for every
hook::

    import sentry_sdk
    from mks_hardening.contrib.sentry_redaction import SentryRedaction

    clean = SentryRedaction()
    sentry_sdk.init(
        before_send=clean,
        before_send_transaction=clean,
        before_breadcrumb=clean,
        before_send_log=clean,
    )
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, cast

from mks_hardening._core.backend.http_session import check_url
from mks_hardening._core.checks import offers, text_of
from mks_hardening._core.database.error_text import database_error_text
from mks_hardening._core.exception_text import own_attribute, safe_text
from mks_hardening._core.memo import Memo
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.context import current
from mks_hardening._core.redaction.message_templates import (
    TemplatePlan,
    Templates,
    render_message,
    without_secret_fields,
    without_secret_values,
)
from mks_hardening._core.redaction.redactor import SecretRedactor, default_redactor
from mks_hardening._core.redaction.step_limit import REDACTED
from mks_hardening.contrib._foreign_records import exc_info_of
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Redactor

__all__ = ["SentryRedaction", "init_sentry"]

SentryEvent: TypeAlias = "dict[str, Any]"

_KEPT: Final = (
    "event_id", "timestamp", "level", "platform", "environment", "release", "type",
    "severity_text", "severity_number", "time_unix_nano", "trace_id", "span_id",
)  # fmt: skip
_TEMPLATE: Final = "sentry.message.template"
_PARAMETER: Final = "sentry.message.parameter."
_MAX_EXCEPTIONS: Final = 100
_MAX_TEXT: Final = 1_000_000
_DSN: Final = re.compile(r"(https?://)[A-Za-z0-9]{1,100}@([^@\s]+/[0-9]{1,20})")
_NOT_SENT: Final = frozenset({"breadcrumbs", "extra", "modules", "request", "user"})
"""Parts of an event that may name a person; the log has them under the request id."""
_PERSONAL: Final = (
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){3,7}",
)
"""Addresses of mail, of IPv4 and of IPv6."""
_REQUEST_LOGGER: Final = "mks_hardening.request"
_logger: Final = logging.getLogger("mks_hardening.sentry")


def init_sentry(
    dsn: str, *, environment: str = "production", release: str | None = None, redactor: Redactor | None = None
) -> None:
    """Report errors of this process to Sentry, GlitchTip or another server of Sentry's protocol.

    Each log record of level ERROR or above is one event, and so is each exception that ends a thread or the
    process; frameworks, Celery and the background tasks of this package log theirs. An exception that is logged
    twice is sent once, and a response with status 5xx is no event of its own. The tag ``request_id`` leads to the
    log, which has what an event lacks: user, request, client address, local variables, fields of the record. In
    texts, secrets and addresses of mail and IP are redacted. Other personal data in the text of an exception or a
    log message remain, so keep them out of it.

    A thread sends the events. While the server cannot be reached, at most 100 events wait and further ones are
    dropped; no request waits, and the end of the process at most two seconds. Call this function once per process,
    before it serves requests; a forked worker continues by itself.

    Args:
        dsn: data source name from the project's settings: ``https://KEY@HOST/PROJECT``; ``http`` only to loopback.
        environment: name of the environment in events.
        release: version of the application in events; by default the SDK finds it, for example in git.
        redactor: redacts values and texts in place of the default one, which also hides addresses of mail and IP.

    Raises:
        ConfigurationError: an argument is invalid; the message does not contain the DSN.
        MissingDependencyError: sentry-sdk is not installed (extra ``sentry``).
    """
    match = _DSN.fullmatch(text_of(dsn, parameter="dsn"))
    if match is None:
        raise ConfigurationError(
            "dsn must be https://KEY@HOST/PROJECT, as the settings of the project show it", parameter="dsn"
        )
    check_url(f"{match[1]}{match[2]}", parameter="dsn")
    text_of(environment, parameter="environment", empty=False)
    text_of("" if release is None else release, parameter="release")
    with optional("sentry_sdk", extra="sentry"):
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
        from sentry_sdk.integrations.dedupe import DedupeIntegration
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration
        from sentry_sdk.integrations.logging import LoggingIntegration
        from sentry_sdk.integrations.threading import ThreadingIntegration
    report = _ErrorReport(SecretRedactor(patterns=_PERSONAL) if redactor is None else redactor)
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=release,
        before_send=cast("Any", report),
        # Framework integrations would report what is logged a second time, with data of the request.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            ExcepthookIntegration(),
            ThreadingIntegration(),
            DedupeIntegration(),
            AtexitIntegration(callback=_say_nothing),
        ],
        include_local_variables=False,
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        trace_propagation_targets=[],
        shutdown_timeout=2,
    )


def _say_nothing(_pending: int, _timeout: float) -> None:
    """Replace the SDK's text on stderr at the end of the process."""


class _ErrorReport:
    """Hook ``before_send`` of ``init_sentry``."""

    def __init__(self, redactor: Redactor) -> None:
        self._redact = SentryRedaction(redactor)

    def __call__(self, event: SentryEvent, hint: SentryEvent, /) -> SentryEvent | None:
        record = hint.get("log_record")
        if isinstance(record, logging.LogRecord) and record.name == _REQUEST_LOGGER and not record.exc_info:
            return None  # the framework logged the exception
        report = self._redact({name: event[name] for name in event.keys() - _NOT_SENT}, hint)
        if entry := _dict_in(report, "logentry"):
            entry.pop("params", None)  # they are part of the text
        request_id = current().get("request_id") or getattr(record, "request_id", None)
        if isinstance(request_id, str):
            report["tags"] = {**(_dict_in(report, "tags") or {}), "request_id": request_id}
        return report


class SentryRedaction:
    """Hook that redacts secrets in events, transactions, breadcrumbs and logs: values, texts, URLs and variables.

    Sentry's own scrubber checks only names, and does not descend into nested structures. Arguments of a logging
    call are classified by their place in the template: for ``logger.error("password=%s", value)`` neither the text
    nor the parameter is sent. An event that cannot be redacted is replaced by a minimal one that says so.

    Use the same object for every hook. ``before_send_log`` is required if ``enable_logs`` is set,
    ``before_send_metric`` and ``before_send_span`` if you use these.

    Args:
        redactor: redacts values and texts; the default redactor if ``None``.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor: Redactor = (
            default_redactor()
            if redactor is None
            else offers(redactor, "redact", "redact_text", parameter="redactor", kind="a SecretRedactor")
        )
        own = self._redactor if isinstance(self._redactor, SecretRedactor) else default_redactor()
        self._is_secret_key: Callable[[str], bool] = own.is_secret_key
        self._templates = Templates(own.is_secret_key)
        self._fields: Memo[str, TemplatePlan | None] = Memo(
            lambda template: without_secret_fields(template, own.is_secret_key), entries=2048
        )

    def __call__(self, event: SentryEvent, hint: object = None, /) -> SentryEvent:
        """Return the redacted event; the given one is not changed."""
        try:
            return self._cleaned(event, cast("SentryEvent", hint) if isinstance(hint, dict) else {})
        except Exception as error:  # noqa: BLE001 - an event that cannot be redacted must not be sent
            _logger.warning("an event for Sentry could not be cleaned (%s)", type(error).__name__)
            # The fields that Sentry needs to store the event; none of them is text from a client or a frame.
            kept = {name: event[name] for name in _KEPT if isinstance(event.get(name), (str, float, int))}
            notice = f"an event that could not be cleaned ({type(error).__name__})"
            return (
                {**kept, "body": notice, "attributes": {}} if "body" in event else {**kept, "message": notice}
            )

    def _cleaned(self, event: SentryEvent, hint: SentryEvent) -> SentryEvent:
        record = hint.get("log_record")
        shown = dict(event)
        if entry := _dict_in(event, "logentry"):
            shown["logentry"] = self._log_entry(entry, record, event.get("extra"))
        elif isinstance(event.get("body"), str) and (attributes := _dict_in(event, "attributes")) is not None:
            shown["body"], shown["attributes"] = self._log(event["body"], attributes)
        elif isinstance(record, logging.LogRecord) and isinstance(event.get("message"), str):
            shown["message"] = self._without_values(self._templates.render(record), event.get("data"))
        if exception := _dict_in(event, "exception"):
            shown["exception"] = self._exceptions(exception, hint)
        clean = cast("SentryEvent", self._redactor.redact(shown))
        request, given = _dict_in(clean, "request"), _dict_in(event, "request")
        if request and given and isinstance(self._redactor, SecretRedactor):
            # Query string and URL are identified by their field; their text alone would not show it.
            if isinstance(query := given.get("query_string"), str):
                request["query_string"] = self._redactor.redact_query(query)
            if isinstance(url := given.get("url"), str):
                request["url"] = self._redactor.redact_url(url)
        return clean

    def _log_entry(self, entry: SentryEvent, record: object, extra: object) -> SentryEvent:
        """Redact the message of an event and the arguments that its template marks as secret."""
        # Sentry cuts long templates; the log record has the whole one.
        template = record.msg if isinstance(record, logging.LogRecord) else entry.get("message")
        params: object = entry.get("params")
        plan = self._templates[template] if params and isinstance(template, str) else None
        shown = {**entry}
        if plan is not None and isinstance(params, (list, tuple, dict)):
            shown["params"] = _without(plan, cast("Any", params))
            shown["formatted"] = _rendered(plan, cast("Any", params))
        for name in ("message", "formatted"):
            if isinstance(shown.get(name), str):
                shown[name] = self._without_values(shown[name], extra)
        return shown

    def _log(self, body: str, attributes: SentryEvent) -> tuple[str, SentryEvent]:
        """Redact the body and the attributes of an entry of Sentry's own logs."""
        template = attributes.get(_TEMPLATE)
        params: SentryEvent = {
            name.removeprefix(_PARAMETER): value
            for name, value in attributes.items()
            if name.startswith(_PARAMETER)
        }
        hidden: Iterable[str] = ()
        if isinstance(template, str) and params:
            positional = all(name.isdigit() for name in params)
            if (plan := self._templates[template]) is not None:
                hidden = (
                    [name for name in params if int(name) not in plan.kept] if positional else plan.hidden
                )
                body = _rendered(plan, list(params.values()) if positional else params)
            elif (plan := self._fields[template]) is not None:
                hidden = plan.hidden
                body = safe_text(_Formatted(plan.template, params))
            attributes = {**attributes, **{f"{_PARAMETER}{name}": REDACTED for name in hidden}}
        return self._without_values(body, params), attributes

    def _exceptions(self, exception: SentryEvent, hint: SentryEvent) -> SentryEvent:
        """Redact exceptions that were raised with log-style arguments, and the values in database errors."""
        _, error, _ = exc_info_of(hint.get("exc_info")) or (None, None, None)
        if error is None:
            return exception
        texts = dict[str, str]()
        for one in _chain(error):
            if (text := self._text_of(one)) is not None:
                notes = _notes(one)
                texts |= {f"{sent}{notes}": f"{text}{notes}" for sent in _texts_for_sentry(one)}
        values: Any = exception.get("values")
        if not texts or not isinstance(values, list):
            return exception
        clean: list[SentryEvent] = [
            {**one, "value": texts.get(str(one.get("value")), one.get("value"))}
            for one in cast("list[SentryEvent]", values)
        ]
        return {**exception, "values": clean}

    def _text_of(self, error: BaseException) -> str | None:
        summary = database_error_text(error)
        return self._templates.of_exception(error) if summary is None else summary

    def _without_values(self, text: str, fields: object) -> str:
        if not isinstance(fields, dict):
            return text
        given = cast("dict[object, object]", fields)
        # Fields from loguru are nested one level deeper.
        for level in (given, given.get("extra")):
            if isinstance(level, dict):
                text = without_secret_values(text, cast("dict[object, object]", level), self._is_secret_key)
        return text


def _dict_in(event: SentryEvent, name: str) -> SentryEvent | None:
    value = event.get(name)
    return cast("SentryEvent", value) if isinstance(value, dict) else None


class _Formatted:
    """A ``str.format`` template that is rendered by ``str()``, so that ``safe_text`` handles its errors."""

    def __init__(self, template: str, fields: SentryEvent) -> None:
        self._template = template
        self._fields = fields

    def __str__(self) -> str:
        return self._template.format_map(self._fields)


def _without(plan: TemplatePlan, params: Any) -> object:
    if isinstance(params, dict):
        named = cast("SentryEvent", params)
        return {name: REDACTED if name in plan.hidden else value for name, value in named.items()}
    return [value if place in plan.kept else REDACTED for place, value in enumerate(params)]


def _rendered(plan: TemplatePlan, params: Any) -> str:
    if isinstance(params, dict):
        return render_message(plan.template, cast("SentryEvent", params))
    args = tuple(params[place] for place in plan.kept if place < len(params))
    return render_message(plan.template, args) if args else plan.template.replace("%%", "%")


def _texts_for_sentry(error: BaseException) -> set[str]:
    """Return the texts that the SDK may send for an exception, without its notes (``get_error_message``)."""
    found = (error, _attribute(error, "message"), _attribute(error, "detail"))
    return {safe_text(one, limit=_MAX_TEXT) for one in found if one is not None}


def _notes(error: BaseException) -> str:
    """Return the notes of an exception as the SDK appends them (PEP 678)."""
    notes = _attribute(error, "__notes__")
    if not isinstance(notes, list) or not notes:
        return ""
    return "\n" + "\n".join(note for note in cast("list[object]", notes) if isinstance(note, str))


def _attribute(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name, None)
    except Exception:  # noqa: BLE001 - a property that raises; the SDK sends nothing for it either
        return None


def _chain(error: BaseException) -> list[BaseException]:
    """Return the exception, its causes and contexts, and the members of groups."""
    found: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < _MAX_EXCEPTIONS:
        one = waiting.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        waiting += (own_attribute(one, "__cause__"), own_attribute(one, "__context__"))
        if issubclass(type(one), BaseExceptionGroup):
            waiting += vars(BaseExceptionGroup)["exceptions"].__get__(one)
    return list(found.values())
