"""Parsing of HTTP responses from bytes, also from servers that lie (RFC 9112)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Cookie", "HttpResponse", "decoded", "parse_response"]

_MOST_FIELDS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A cookie that a response sets: its name and its attributes in lower case."""

    name: str
    attributes: frozenset[str]
    same_site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response.

    Attributes:
        url: what was requested.
        status: status code; 0 if none could be read.
        fields: names in lower case and values, in order.
        body: the beginning of the body.
        error: why there is no response.
    """

    url: str
    status: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""
    error: str = ""

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for field, value in self.fields if field == name.lower()]

    def field(self, name: str) -> str:
        """Return all values of a field, joined by commas; empty if there is none."""
        return ", ".join(self.all(name))

    @property
    def cookies(self) -> list[Cookie]:
        """The cookies that it sets (RFC 6265)."""
        found: list[Cookie] = []
        for value in self.all("set-cookie"):
            pair, *attributes = value.split(";")
            names = {
                part.partition("=")[0].strip().lower(): part.partition("=")[2].strip() for part in attributes
            }
            found.append(
                Cookie(
                    name=pair.partition("=")[0].strip(),
                    attributes=frozenset(names),
                    same_site=names.get("samesite", "").lower(),
                )
            )
        return found


def parse_response(data: bytes, url: str) -> HttpResponse:
    """Return the response in these bytes; what is malformed gives a response without a status."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        head, found, body = data.partition(b"\n\n")
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    match = re.match(r"HTTP/\d(?:\.\d)? (\d{3})(?:\D|$)", lines[0])
    if match is None:
        return HttpResponse(url=url, error="no HTTP response")
    fields: list[tuple[str, str]] = []
    for line in lines[1 : _MOST_FIELDS + 1]:
        name, colon, value = line.partition(":")
        if colon:
            fields.append((name.strip().lower(), value.strip()))
    response = HttpResponse(url=url, status=int(match[1]), fields=tuple(fields))
    if "chunked" in response.field("transfer-encoding").lower():
        body = _joined(body)
    return replace(response, body=decoded(body, response.field("content-type")))


def decoded(body: bytes, content_type: str) -> str:
    """Return a body as text, in the encoding that its type names; in UTF-8, if it names none."""
    charset = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    try:
        return body.decode(charset[1] if charset else "utf-8", "replace")
    except (LookupError, ValueError):  # a name that nobody knows, or that is no encoding of text
        return body.decode("utf-8", "replace")


def _joined(body: bytes) -> bytes:
    """Return the content of chunks, as far as they are well-formed (RFC 9112, 7.1)."""
    found, place = bytearray(), 0
    while size := re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n").match(body, place):
        place = size.end() + int(size[1], 16)
        found += body[size.end() : place]
        place += 2
    return bytes(found)
