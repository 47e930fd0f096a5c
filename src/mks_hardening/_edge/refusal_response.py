"""Refusal responses of the middleware: prebuilt and short, unless the application supplies its own."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from mks_hardening._core import hooks
from mks_hardening._core.checks import function
from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.operations import require_sync_result
from mks_hardening._core.redaction.step_limit import REDACTED
from mks_hardening._core.web.environ_keys import REFUSAL_KEY
from mks_hardening._core.web.problem_details import PROBLEM_TYPE, prefers_text, problem_document
from mks_hardening._edge.refusals import CustomResponse, OnRefusal, Refusal
from mks_hardening.events import RequestRefused

__all__ = ["INTERNAL_ERROR", "FixedResponse", "RefusalResponse", "Refuser", "printable_excerpt"]

Header = tuple[str, str]

# Enough for a host or an origin; anything beyond is text that the client puts into our log.
_LONGEST_SEEN: Final = 200
_LISTS: Final = frozenset({"set-cookie", "vary", "www-authenticate"})
"""Fields that a response may have several times; of the others, a custom response replaces those of the refusal."""


class FixedResponse:
    """A prebuilt response, which the shells send; HEAD requests get it without the body.

    Attributes:
        status: status code.
        status_line: status code and reason phrase.
        headers: all header fields.
        body: the body.
    """

    __slots__ = ("_raw_headers", "body", "headers", "status", "status_line")

    def __init__(
        self, status: int, body: str | bytes, content_type: str, headers: Iterable[Header] = ()
    ) -> None:
        self.status: int = status
        self.status_line: str = _status_line(status)
        self.body: bytes = body.encode() if isinstance(body, str) else body
        # RFC 9110, 8.6 and 15.3.5.
        content = () if status in (204, 304) else _content_fields(content_type, self.body)
        self.headers: tuple[Header, ...] = (*content, *headers)
        self._raw_headers: list[tuple[bytes, bytes]] | None = None

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The header fields as bytes with lower-case names, as ASGI requires; not to be modified."""
        if self._raw_headers is None:
            self._raw_headers = [
                (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in self.headers
            ]
        return self._raw_headers

    def with_headers(self, headers: Iterable[Header]) -> FixedResponse:
        """Return a copy with other header fields."""
        copy = FixedResponse.__new__(FixedResponse)
        copy.status, copy.status_line, copy.body = self.status, self.status_line, self.body
        copy.headers = tuple(headers)
        copy._raw_headers = None  # noqa: SLF001 - same class
        return copy


class RefusalResponse:
    """A reason to refuse, with its responses: a problem document (RFC 9457), or text if ``Accept`` prefers it.

    Both name the setting that decides: whoever tries an application behind the middleware sees what to change.
    """

    __slots__ = ("_problem", "_text", "detail", "headers", "name", "setting", "status")

    def __init__(
        self,
        name: str,
        status: int,
        detail: str,
        headers: Iterable[Header] = (),
        *,
        language: str = "",
        setting: str = "",
        **members: object,
    ) -> None:
        self.name: str = name
        self.status: int = status
        self.detail: str = detail
        self.setting: str = setting
        self.headers: tuple[Header, ...] = tuple(headers)
        title = members.get("title", HTTPStatus(status).phrase)
        # Describes the language of the built-in texts; a custom response sets its own Content-Language.
        worded = (("Content-Language", language), ("Vary", "Accept, Accept-Language"))
        negotiated = worded if language else (("Vary", "Accept"),)
        kept = (("Cache-Control", "no-store"), *negotiated, *self.headers)
        decides = {"setting": setting} if setting else {}
        document = problem_document(status, detail, **members, **decides)
        self._problem = FixedResponse(status, document, PROBLEM_TYPE, kept)
        text = f"{title}\n\n{detail}\n" + (f"\nSetting: {setting}\n" if setting else "")
        self._text = FixedResponse(status, text, "text/plain; charset=utf-8", kept)

    def answer(self, accept: str) -> FixedResponse:
        """Return the response in the format that ``Accept`` prefers."""
        return self._text if prefers_text(accept) else self._problem


class Refuser:
    """Refusal of requests on behalf of one middleware.

    It stores the refusal for the request log, emits the event and chooses the response.

    Args:
        wrapper: name of the middleware in log records and events.
        on_refusal: may return a custom response.
    """

    __slots__ = ("_on_refusal", "_wrapper")

    def __init__(self, wrapper: str, on_refusal: OnRefusal | None) -> None:
        self._wrapper = wrapper
        self._on_refusal = None if on_refusal is None else function(on_refusal, parameter="on_refusal")

    def refuse(
        self,
        request: dict[str, Any],
        rule: RefusalResponse,
        *,
        accept: str,
        client_ip: str,
        name: str = "",
        seen: str = "",
        headers: Iterable[Header] = (),
        page: FixedResponse | None = None,
    ) -> FixedResponse:
        """Return the response that is sent in place of the application's.

        Args:
            request: WSGI environ or ASGI scope of the request.
            rule: reason of the refusal.
            accept: field ``Accept`` of the request, or an empty text.
            client_ip: address of the client, for the event.
            name: more specific name of the reason; by default that of ``rule``.
            seen: the value that broke the rule.
            headers: additional header fields of this response.
            page: sent in place of the response of ``rule``, unless ``on_refusal`` has another.
        """
        own = tuple(headers)
        refusal = Refusal(
            wrapper=self._wrapper,
            rule=name or rule.name,
            status=rule.status,
            detail=rule.detail,
            seen=printable_excerpt(seen),
            headers=(*rule.headers, *own),
            setting=rule.setting,
        )
        request[REFUSAL_KEY] = refusal
        if hooks.observers:
            hooks.emit(RequestRefused(self._wrapper, refusal.rule, client_ip))
        custom = self.custom_response(request, refusal)
        if custom is not None:
            return custom
        if page is not None:
            return page
        response = rule.answer(accept)
        return response.with_headers((*response.headers, *own)) if own else response

    def custom_response(self, request: dict[str, Any], refusal: Refusal) -> FixedResponse | None:
        """Return the application's response to a refusal; ``None`` if it has none or ``on_refusal`` raises."""
        if self._on_refusal is None:
            return None
        try:
            answer = require_sync_result(self._on_refusal(request, refusal))
            return None if answer is None else _from_custom_response(answer, refusal)
        except Exception as error:  # noqa: BLE001 - the request stays refused
            log_function_error(
                self._on_refusal,
                error,
                parameter="on_refusal",
                otherwise=f"{refusal.wrapper} {refusal.rule} is refused with the default response",
                logger="mks_hardening.wsgi",
            )
            return None


def _from_custom_response(answer: CustomResponse, refusal: Refusal) -> FixedResponse:
    given = {name.lower() for name, _ in answer.headers} - _LISTS
    headers = [*answer.headers, *(field for field in refusal.headers if field[0].lower() not in given)]
    if not any(name.lower() == "cache-control" for name, _ in headers):
        headers.append(("Cache-Control", "no-store"))
    return FixedResponse(answer.status or refusal.status, answer.body, answer.content_type, headers)


def printable_excerpt(value: str) -> str:
    """Shorten a value from a request, without the password of a URL or host, and escape it to printable ASCII."""
    text = _without_credentials(value) if "@" in value else value
    text = text if len(text) <= _LONGEST_SEEN else text[:_LONGEST_SEEN] + "..."
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _without_credentials(value: str) -> str:
    scheme, slashes, rest = value.rpartition("://") if value.count("://") == 1 else ("", "", value)
    user, _, host = rest.rpartition("@")
    has_credentials = slashes or (":" in user and "/" not in user)
    return f"{scheme}{slashes}{REDACTED}@{host}" if has_credentials else value


def _content_fields(content_type: str, body: bytes) -> tuple[Header, ...]:
    return ("Content-Type", content_type), ("Content-Length", str(len(body)))


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Refused"


INTERNAL_ERROR: Final = FixedResponse(
    500, "Internal Server Error\n", "text/plain; charset=utf-8", [("Cache-Control", "no-store")]
)
"""The response to an unhandled exception."""
