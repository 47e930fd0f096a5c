"""Parsers for lists whose items can be validated at once: hosts, networks, keys, servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening._core.environment.parsers import Parser, parse_list, parse_size
from mks_hardening._core.environment.secret_keys import KEY_BYTES, is_guessable, key_from_base64
from mks_hardening._core.origin.forwarding_headers import ignored_fields, kept_fields
from mks_hardening._core.origin.hostname import parse_host
from mks_hardening._core.origin.network_addresses import parse_network
from mks_hardening._core.origin.web_origin import parse_origin
from mks_hardening._core.web.paths import exemptions, paths_of_rule
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "parse_address",
    "parse_addresses",
    "parse_client_networks",
    "parse_host_name",
    "parse_hosts",
    "parse_ignored_headers",
    "parse_kept_headers",
    "parse_methods",
    "parse_networks",
    "parse_origins",
    "parse_paths",
    "parse_rate_limits",
    "parse_redis",
    "parse_secret_keys",
    "parse_sender_origins",
    "parse_signing_keys",
    "parse_sizes_by_path",
]

_SHORTEST_SIGNING_KEY: Final = 16


def _is_host(text: str) -> bool:
    """Whether a text is a host name or address; internationalized names are checked in their ``xn--`` form."""
    written = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    try:
        ascii_form = written if written.isascii() else written.encode("idna").decode()
    except UnicodeError:
        return False
    return parse_host(ascii_form) is not None


def _is_valid(parse: Callable[[], object]) -> bool:
    try:
        parse()
    except ConfigurationError:
        return False
    return True


def _is_address(text: str) -> bool:
    """Whether a text is a syntactically valid email address."""
    local, at, domain = text.rpartition("@")
    return bool(local and at) and text.isprintable() and " " not in text and _is_host(domain)


def _is_secret_key(text: str) -> bool:
    key = key_from_base64(text)
    return key is not None and not is_guessable(key)


def _is_signing_key(text: str) -> bool:
    return len(text.encode()) >= _SHORTEST_SIGNING_KEY and not is_guessable(text.encode())


def _list_of(
    form: str, forms: str, fits: Callable[[str], bool], *, show: bool = True
) -> Parser[tuple[str, ...]]:
    """Return a parser for a list of valid items; the first invalid item is quoted unless it may be a secret."""

    def read(text: str) -> tuple[str, ...]:
        items = parse_list(text)
        for place, item in enumerate(items, 1):
            if not fits(item):
                which = f"{item[:60]!r}" if show else f"item {place}"
                raise ValueError(f"{forms}; {which} is not")
        return items

    return Parser(form, read, ",".join)


parse_hosts: Final = _list_of(
    "list of hosts",
    "comma-separated host names or addresses, .example.com for a domain and its subdomains",
    lambda item: _is_host(item.removeprefix(".")),
)
parse_origins: Final = _list_of(
    "list of origins",
    "comma-separated origins such as https://www.example.com, or *",
    lambda item: item == "*" or parse_origin(item) is not None,
)
parse_sender_origins: Final = _list_of(
    "list of origins",
    "comma-separated origins such as https://www.example.com",
    lambda item: parse_origin(item) is not None,
)
parse_methods: Final = _list_of(
    "list of methods",
    "comma-separated methods in capitals such as PROPFIND",
    lambda item: item.isascii() and item.isupper() and item.replace("-", "").isalpha(),
)
parse_paths: Final = _list_of(
    "list of paths",
    "comma-separated paths: /hook is that page, /hooks/ everything below, =/ the front page; not / for all",
    lambda item: _is_valid(lambda: exemptions([item], parameter="")),
)
parse_networks: Final = _list_of(
    "list of addresses and networks",
    "comma-separated addresses, networks such as 10.0.0.0/8, or unix",
    lambda item: item == "unix" or _is_valid(lambda: parse_network(item, parameter="")),
)
parse_client_networks: Final = _list_of(
    "list of addresses and networks",
    "comma-separated addresses or networks such as 198.51.100.0/24",
    lambda item: _is_valid(lambda: parse_network(item, parameter="")),
)
parse_kept_headers: Final = _list_of(
    "list of header names",
    "comma-separated header names such as X-Real-IP, each of which would be removed",
    lambda item: _is_valid(lambda: kept_fields([item], parameter="")),
)
parse_ignored_headers: Final = _list_of(
    "list of header names",
    "comma-separated header names, of X-Forwarded-Host, X-Forwarded-Port and X-Forwarded-Prefix",
    lambda item: _is_valid(lambda: ignored_fields([item], parameter="")),
)
parse_addresses: Final = _list_of("list of mail addresses", "comma-separated mail addresses", _is_address)


def _address(text: str) -> str:
    if not _is_address(text):
        raise ValueError("a mail address")
    return text


parse_address: Final = Parser("mail address", _address)
parse_secret_keys: Final = _list_of(
    "list of keys",
    f"base64 of {KEY_BYTES} random bytes, comma-separated (SecretBox.generate_key() creates a key)",
    _is_secret_key,
    show=False,
)
parse_signing_keys: Final = _list_of(
    "list of keys",
    f"random secrets of at least {_SHORTEST_SIGNING_KEY} bytes, comma-separated",
    _is_signing_key,
    show=False,
)


def _host_name(text: str) -> str:
    if not _is_host(text.strip()):
        raise ValueError("a host name or an IP address")
    return text.strip()


parse_host_name: Final = Parser("host", _host_name)


def _redis(text: str) -> str:
    try:
        parse_redis_url(text.strip(), allow_plaintext=True)  # plaintext is checked by another setting
    except ConfigurationError as error:
        raise ValueError(f"a Redis URL: {error}") from None
    return text.strip()


parse_redis: Final = Parser("Redis URL", _redis)


_size: Final = parse_size()


def _sizes_by_path(text: str) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for item in parse_list(text):
        path, _, size = (part.strip() for part in item.rpartition("="))
        try:
            paths_of_rule(path)
            found[path] = _size.read(size)
        except (ConfigurationError, ValueError):
            raise ValueError(
                f"comma-separated paths with sizes, such as /uploads/=2GB,/import=100MiB; {item[:60]!r} is not"
            ) from None
    return tuple(found.items())


parse_sizes_by_path: Final = Parser(
    "list of paths with sizes",
    _sizes_by_path,
    lambda value: ",".join(f"{path}={size}" for path, size in value),
)


def _rate_limits(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split("|"))):
        group, sign, limits = (side.strip() for side in part.partition("="))
        if not (group and sign and limits) or group in found:
            raise ValueError(
                f"a list of groups and limits, each group once, such as search=60 per minute; 900 per hour | "
                f"admin=20 per minute; {part[:60]!r} is not"
            )
        found[group] = limits
    return tuple(found.items())


parse_rate_limits: Final = Parser(
    "groups of limits", _rate_limits, lambda value: " | ".join(f"{group}={limits}" for group, limits in value)
)
