"""Hosts that an application serves."""

from __future__ import annotations

from collections.abc import Iterable

from mks_hardening._core.checks import strings
from mks_hardening._core.origin.hostname import HostPort, parse_host
from mks_hardening.exceptions import ConfigurationError

__all__ = ["AllowedHosts", "host_from_settings"]


class AllowedHosts:
    """Allowed hosts in settings syntax: ``example.com``, ``.example.com`` (with subdomains), ``::1``, ``例え.jp``.

    An entry with a port (``example.com:8443``) matches that port only; others match every port.

    Raises:
        ConfigurationError: there is no entry, a single string was given, or an entry is malformed or matches
            everything.
    """

    __slots__ = ("_exact", "_suffixes")

    def __init__(self, hosts: Iterable[str], *, parameter: str = "allowed_hosts") -> None:
        entries = strings(hosts, parameter=parameter, of="hosts")
        if not entries:
            raise ConfigurationError(f"{parameter} must contain at least one host", parameter=parameter)
        exact: set[tuple[str, int | None]] = set()
        suffixes: list[str] = []
        for entry in entries:
            wildcard = entry.startswith(".")
            name, port = host_from_settings(entry[1:] if wildcard else entry, parameter=parameter)
            if wildcard and port is not None:
                raise ConfigurationError(f"{parameter}: a wildcard cannot have a port", parameter=parameter)
            # ".example.com" also matches example.com, as in Django.
            exact.add((name, port))
            if wildcard:
                suffixes.append("." + name)
        self._exact = frozenset(exact)
        self._suffixes = tuple(suffixes)

    def lists(self, name: str, port: int) -> bool:
        """Return whether a host, given in canonical form, is allowed."""
        return (name, None) in self._exact or (name, port) in self._exact or name.endswith(self._suffixes)


def host_from_settings(text: str, *, parameter: str) -> HostPort:
    """Parse a host from a setting into canonical form; internationalized names become ``xn--`` names.

    Raises:
        ConfigurationError: the text is not a host, or is a name that browsers encode differently from the older
            rules (IDNA 2003) of the standard library; write such a name in its ``xn--`` form.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{parameter} must contain strings, not {type(text).__name__}", parameter=parameter
        )
    # In a setting, an IPv6 address needs no brackets; a Host field has them.
    written = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    host = parse_host(_to_ascii(written, parameter))
    if host is None:
        raise ConfigurationError(
            f"{parameter}: {text!r} is not a host; allowed are names, '.example.com' for a domain and its "
            "subdomains, and addresses",
            parameter=parameter,
        )
    return host


def _to_ascii(text: str, parameter: str) -> str:
    if text.isascii():
        return text
    name, colon, port = text.partition(":")
    try:
        encoded = name.encode("idna")
        # IDNA 2003 maps some letters to others that browsers (UTS 46) keep: such a name would allow a different
        # host.
        faithful = encoded.decode("idna") == name.lower()
    except UnicodeError:
        faithful, encoded = False, b""
    if not faithful:
        raise ConfigurationError(f"{parameter}: write {text!r} in its xn-- form", parameter=parameter)
    return encoded.decode("ascii") + colon + port
