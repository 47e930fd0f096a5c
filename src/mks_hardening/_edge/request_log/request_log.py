"""Request ids and the log record of one request, for the WSGI and the ASGI middleware."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core import hooks
from mks_hardening._core.checks import offers, text_of
from mks_hardening._core.clock import given_clock
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.web.paths import PathRules, exemptions
from mks_hardening._edge.refusal_response import INTERNAL_ERROR, FixedResponse, Refuser
from mks_hardening._edge.refusals import Refusal
from mks_hardening._edge.request_log.outcome import level_of
from mks_hardening._edge.request_log.query import QueryText
from mks_hardening._edge.request_log.request_ids import accepted_request_id, trace_id_of
from mks_hardening.events import RequestFinished
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, RequestSpan, RequestTracer

__all__ = ["RequestLog", "declared_length"]

_LOGGER_NAME: Final = "mks_hardening.request"
_MESSAGE: Final = "%s %s %d"
_REFUSED: Final = ", refused by the %s rule %s (%s)"
_DECIDES: Final = "; see %s"
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

_ERROR: Final = Refusal(wrapper="record", rule="error", status=500, detail="Internal Server Error")


class RequestLog:
    """The validated options of ``RequestLoggingMiddleware``, with the same arguments.

    Attributes:
        header: header field of the request id.
        raw_header: its name in an ASGI scope.
        monotonic: clock for durations.
        shown_query: redacts a query string.
        tracer: starts a span for every request that is logged.
    """

    def __init__(
        self,
        *,
        logger: logging.Logger | None,
        request_id_header: str,
        skip_paths: Iterable[str],
        clock: Clock,
        on_refusal: OnRefusal | None,
        tracer: RequestTracer | None,
    ) -> None:
        if not _TOKEN.issuperset(text_of(request_id_header, parameter="request_id_header", empty=False)):
            raise ConfigurationError("request_id_header must be a header name", parameter="request_id_header")
        if tracer is not None:
            offers(tracer, "begin", parameter="tracer", kind="a RequestTracer")
        self.tracer = tracer
        self._refuser = Refuser("record", on_refusal)
        self.skipped: PathRules = exemptions(skip_paths, parameter="skip_paths")
        chosen = logging.getLogger(_LOGGER_NAME) if logger is None else logger
        self._logger: logging.Logger = offers(
            chosen, "isEnabledFor", "makeRecord", "handle", parameter="logger", kind="a logger"
        )
        self.header = request_id_header
        self.raw_header: bytes = request_id_header.lower().encode("latin-1")
        self.shown_query: Callable[[str], str] = QueryText(default_redactor().redact_query)
        self.monotonic: Callable[[], float] = given_clock(clock).monotonic

    def ids(self, sent_id: str | None, traceparent: str | None) -> tuple[str, str, bool]:
        """Return the ids of a request; what the client sent is ``None`` if it is missing or not trusted.

        Returns:
            Request id, trace id, and whether the trace was begun by the client. A plain tuple: every request pays
            for named fields.
        """
        made = os.urandom(32).hex()  # for both ids at once: each call is a system call
        if sent_id is None and traceparent is None:
            return made[32:], made[:32], False
        trace_id = trace_id_of(traceparent)
        return accepted_request_id(sent_id) or made[32:], trace_id or made[:32], trace_id is not None

    def start_span(self, request: dict[str, Any], path: str, fields: dict[str, str]) -> RequestSpan | None:
        """Start the span of a request and put its ids into the fields of the request's log records."""
        if self.tracer is None or self.skipped.match(path):
            return None
        span = None
        try:
            span = self.tracer.begin(request)
            if span is not None and span.trace_id:
                fields["trace_id"] = span.trace_id
                fields["span_id"] = span.span_id
        except Exception:  # noqa: S110, BLE001 - a span that cannot be started must not break the request
            pass
        return span

    def error_response(self, request: dict[str, Any]) -> FixedResponse:
        """Return the response to an unhandled exception."""
        return self._refuser.custom_response(request, _ERROR) or INTERNAL_ERROR

    def report(
        self,
        fields: dict[str, Any],
        *,
        duration: float,
        error: BaseException | None,
        span: RequestSpan | None,
    ) -> None:
        """Write the record, end the span and emit the event.

        Args:
            fields: result of ``record_fields``.
            duration: seconds until the last byte.
            error: exception that left the application.
            span: result of ``start_span``.
        """
        try:
            self._log(fields, error)
        finally:
            if span is not None:
                try:  # noqa: SIM105 - ``suppress`` would cost as much as the span
                    span.end(fields)
                except Exception:  # noqa: S110, BLE001 - as in ``start_span``
                    pass
            if hooks.observers:
                hooks.emit(
                    RequestFinished(
                        fields["method"],
                        fields.get("route"),
                        fields["status"],
                        duration * 1000,
                        fields["outcome"],
                    )
                )

    def _log(self, fields: dict[str, Any], error: BaseException | None) -> None:
        logger = self._logger
        level = level_of(fields["status"], fields["outcome"], fields.get("refused_by", ""))
        if not logger.isEnabledFor(level):
            return
        message = _MESSAGE
        arguments: tuple[Any, ...] = (fields["method"], fields["path"], fields["status"])
        if fields["outcome"] != "ok":  # "ok" beside a 500 would be misleading
            message += " %s"
            arguments += (fields["outcome"],)
        if "refused_by" in fields:
            message += _REFUSED
            arguments += (fields["refused_by"], fields["refused_rule"], fields["refused_value"])
            if "refused_setting" in fields:
                message += _DECIDES
                arguments += (fields["refused_setting"],)
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        # Not logger.log(): finding the caller's line by walking the stack costs more than the rest, and finds this
        # file.
        record = logger.makeRecord(logger.name, level, __name__, 0, message, arguments, exc_info)
        record.__dict__.update(fields)
        logger.handle(record)


def declared_length(text: str) -> int | None:
    """Return the number in a ``Content-Length`` field; ``None`` if it is malformed."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
