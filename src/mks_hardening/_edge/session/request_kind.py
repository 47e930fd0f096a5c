"""Kind of response that a request expects, which decides how the end of a session is reported."""

from __future__ import annotations

from typing import Final

__all__ = ["WEBSOCKET", "is_part_of_a_page", "wants_page"]

WEBSOCKET: Final = "WEBSOCKET"
"""In place of the method: the request opens a WebSocket, which neither is a page nor follows redirects."""
_LONGEST_ACCEPT: Final = 2048  # browsers send about 150 characters
# Fetch, 3.2.7 Sec-Fetch-Dest: resources that a page displays or runs.
_PARTS: Final = frozenset({
    "audio", "audioworklet", "font", "image", "manifest", "paintworklet", "script", "serviceworker",
    "sharedworker", "style", "track", "video", "worker",
})  # fmt: skip
# Over plain HTTP browsers send Sec-Fetch-Dest only to localhost.
_SUFFIXES: Final = (
    ".avif", ".css", ".eot", ".gif", ".ico", ".jpeg", ".jpg", ".js", ".map", ".mjs", ".mp3", ".mp4", ".ogg",
    ".otf", ".png", ".svg", ".ttf", ".vtt", ".wasm", ".webm", ".webmanifest", ".webp", ".woff", ".woff2",
)  # fmt: skip


def is_part_of_a_page(method: str, path: str, destination: str) -> bool:
    """Return whether a page loads a style sheet, image, script or the like, whose refusal no user would see.

    Args:
        method: method of the request.
        path: path of the request.
        destination: the field ``Sec-Fetch-Dest``, or an empty text.
    """
    if method not in ("GET", "HEAD"):
        return False
    return destination in _PARTS if destination else path.lower().endswith(_SUFFIXES)


def wants_page(accept: str, requested_with: str) -> bool:
    """Return whether a browser is opening a page, as opposed to a request from a script or another service.

    Args:
        accept: the field ``Accept``.
        requested_with: the field ``X-Requested-With``.
    """
    if requested_with.lower() == "xmlhttprequest":
        return False
    quality = _qualities(accept)
    html = max(quality.get("text/html", 0.0), quality.get("application/xhtml+xml", 0.0))
    json_like = max(quality.get("application/json", 0.0), quality.get("application/problem+json", 0.0))
    return html > 0 and html >= json_like


def _qualities(accept: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for item in accept[:_LONGEST_ACCEPT].lower().split(","):
        kind, *parameters = item.split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                weight = _weight(value.strip())
        result[kind.strip()] = weight
    return result


def _weight(text: str) -> float:
    """Parse a weight (RFC 9110, 12.4.2); 0 if it is malformed."""
    whole, _, fraction = text.partition(".")
    if (
        whole not in ("0", "1")
        or len(fraction) > 3
        or not (fraction + "0").isascii()
        or not (fraction + "0").isdecimal()
    ):
        return 0.0
    return min(1.0, float(f"{whole}.{fraction or 0}"))
