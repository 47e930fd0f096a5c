"""What operators write: any text is a value or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable

from mks_hardening._core.backend.http_session import check_url
from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening._core.environment import parsers
from mks_hardening.exceptions import ConfigurationError

PARSERS = [
    parsers.parse_bool,
    parsers.parse_integer(-10, 10**9),
    parsers.parse_float(0, 100),
    parsers.parse_duration(bare="m"),
    parsers.parse_size(),
    parsers.parse_list,
    parsers.parse_url("redis", "https"),
]
PREFIXES = ("", "redis://", "redis+sentinel://127.0.0.1/", "https://")


def one_input(data: bytes) -> None:
    """Run every parser."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in PARSERS:
        try:
            parse(text)
        except ValueError:
            continue
    for prefix in PREFIXES:
        for check in (parse_redis_url, check_url):
            assert len(text) < 6 or text not in _refusal(check, prefix + text)


def _refusal(check: Callable[[str], object], text: str) -> str:
    try:
        check(text)
    except ConfigurationError as error:
        return str(error)
    return ""
