"""What kind of answer a request is waiting for, so that an ended session is told in the right form."""

from __future__ import annotations

from typing import Final

__all__ = ["is_part_of_a_page", "wants_page"]

_LONGEST_ACCEPT: Final = 2048  # browsers send about 150 characters
# Fetch, 3.2.7 Sec-Fetch-Dest: what a page loads to be looked at, and what it runs.
_PARTS: Final = frozenset({
    "audio", "audioworklet", "font", "image", "manifest", "paintworklet", "script", "serviceworker",
    "sharedworker", "style", "track", "video", "worker",
})  # fmt: skip
# Browsers say no destination over plain http but to this machine.
_SUFFIXES: Final = (
    ".avif", ".css", ".eot", ".gif", ".ico", ".jpeg", ".jpg", ".js", ".map", ".mjs", ".mp3", ".mp4", ".ogg",
    ".otf", ".png", ".svg", ".ttf", ".vtt", ".wasm", ".webm", ".webmanifest", ".webp", ".woff", ".woff2",
)  # fmt: skip


def is_part_of_a_page(method: str, path: str, destination: str) -> bool:
    """Whether a style sheet, picture or script is asked for, which nobody sees a refusal of.

    Args:
        method: of the request.
        path: of the request.
        destination: the field ``Sec-Fetch-Dest``, where the client sends it.
    """
    if method not in ("GET", "HEAD"):
        return False
    return destination in _PARTS if destination else path.lower().endswith(_SUFFIXES)


def wants_page(accept: str, requested_with: str) -> bool:
    """Whether the request comes from a page that is being opened, not from a script or another service.

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
    """RFC 9110, 12.4.2; what is not readable counts as 0."""
    whole, _, fraction = text.partition(".")
    if (
        whole not in ("0", "1")
        or len(fraction) > 3
        or not (fraction + "0").isascii()
        or not (fraction + "0").isdecimal()
    ):
        return 0.0
    return min(1.0, float(f"{whole}.{fraction or 0}"))
