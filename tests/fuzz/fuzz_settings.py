"""What operators write: any text is a value or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable

from mks_hardening._core import env
from mks_hardening._core.http_session import check_url
from mks_hardening._core.redis_url import parse_redis_url
from mks_hardening.exceptions import ConfigurationError

PARSERS = [
    env.parse_bool,
    env.parse_integer(-10, 10**9),
    env.parse_float(0, 100),
    env.parse_duration(bare="m"),
    env.parse_size(),
    env.parse_list,
    env.parse_url("redis", "https"),
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
