"""The list of hosts an application answers for."""

from __future__ import annotations

from collections.abc import Iterable

from mks_hardening._core.checks import texts
from mks_hardening._core.origin.hostname import HostPort, parse_host
from mks_hardening.exceptions import ConfigurationError

__all__ = ["AllowedHosts", "host_from_settings"]


class AllowedHosts:
    """Hosts as users write them: ``example.com``, ``.example.com`` (it and all below), ``::1``, ``例え.jp``.

    An entry with a port (``example.com:8443``) is listed for that port alone; others for every port.

    Raises:
        ConfigurationError: no entry, one string, an entry that is malformed or lists everything.
    """

    __slots__ = ("_exact", "_suffixes")

    def __init__(self, hosts: Iterable[str], *, parameter: str = "allowed_hosts") -> None:
        entries = texts(hosts, parameter=parameter, of="hosts")
        if not entries:
            raise ConfigurationError(f"{parameter} must name at least one host", parameter=parameter)
        exact: set[tuple[str, int | None]] = set()
        suffixes: list[str] = []
        for entry in entries:
            wildcard = entry.startswith(".")
            name, port = host_from_settings(entry[1:] if wildcard else entry, parameter=parameter)
            if wildcard and port is not None:
                raise ConfigurationError(f"{parameter}: a wildcard takes no port", parameter=parameter)
            # ".example.com" lists example.com too, as Django does.
            exact.add((name, port))
            if wildcard:
                suffixes.append("." + name)
        self._exact = frozenset(exact)
        self._suffixes = tuple(suffixes)

    def lists(self, name: str, port: int) -> bool:
        """Whether a host in its one spelling is listed."""
        return (name, None) in self._exact or (name, port) in self._exact or name.endswith(self._suffixes)


def host_from_settings(text: str, *, parameter: str) -> HostPort:
    """A host from a setting, in its one spelling; names in other scripts become ``xn--`` names.

    Raises:
        ConfigurationError: not a host, or a name that browsers encode in another way than the older rules of the
            standard library do (write such a name in its ``xn--`` form).
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{parameter} must hold strings, not {type(text).__name__}", parameter=parameter
        )
    # A bare IPv6 address in a setting means the host that a Host field writes in brackets.
    written = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    host = parse_host(_to_ascii(written, parameter))
    if host is None:
        raise ConfigurationError(
            f"{parameter}: {text!r} is not a host; allowed are names, '.example.com' for a name and all below it, "
            "and addresses",
            parameter=parameter,
        )
    return host


def _to_ascii(text: str, parameter: str) -> str:
    if text.isascii():
        return text
    name, colon, port = text.partition(":")
    try:
        encoded = name.encode("idna")
        # IDNA 2003 maps some letters away, browsers (UTS 46) keep them: such a name would list another host.
        faithful = encoded.decode("idna") == name.lower()
    except UnicodeError:
        faithful, encoded = False, b""
    if not faithful:
        raise ConfigurationError(f"{parameter}: write {text!r} in its xn-- form", parameter=parameter)
    return encoded.decode("ascii") + colon + port
