"""Redis URLs: what is allowed, decided without touching the network or the client library.

``redis://`` and ``rediss://`` (with ACL user and database), ``unix://``, ``redis+sentinel://host,host/service/db``
and ``redis+cluster://host,host`` (``rediss+…`` for TLS).
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from mks_hardening._core.loopback import is_loopback
from mks_hardening.exceptions import ConfigurationError

__all__ = ["RedisUrl", "parse_redis_url"]

_SCHEMES: Final = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("single", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_DEFAULT_PORT: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}


class RedisUrl(NamedTuple):
    """A checked Redis URL."""

    topology: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    username: str | None
    password: str | None
    database: int
    service: str
    ca_file: str | None

    @property
    def address(self) -> str:
        """Where it points, without credentials: for names, logs and errors."""
        return self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)

    def __repr__(self) -> str:
        return f"RedisUrl({self.topology}, {self.address}, database={self.database}, tls={self.tls})"


def parse_redis_url(url: str, *, allow_plaintext: bool = False) -> RedisUrl:
    """Check a Redis URL.

    Raises:
        ConfigurationError: unknown scheme, no host, a bad port or database, an unknown option, or clear text to
            another machine without ``allow_plaintext=True``. The message never holds the URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("its host is not readable") from None
    if parts.scheme not in _SCHEMES:
        raise _wrong(f"the scheme must be one of {', '.join(_SCHEMES)}")
    topology, tls = _SCHEMES[parts.scheme]
    userinfo, _, hostlist = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    options = _options(parts.query, tls)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    path = unquote(parts.path) if parts.scheme == "unix" else ""
    service = segments.pop(0) if topology == "sentinel" and segments else ""
    if topology == "sentinel" and not service:
        raise _wrong("a sentinel URL names the service: redis+sentinel://host:26379/service/0")
    database = options.get("db") or ("0" if path or not segments else segments[0])
    hosts = tuple(_host_port(item, topology) for item in hostlist.split(",")) if not path else ()
    if not path and not all(host for host, _ in hosts):
        raise _wrong("it names no host")
    if not tls and not allow_plaintext and not all(is_loopback(host) for host, _ in hosts):
        raise _wrong("clear text goes to loopback only; use rediss:// or allow_plaintext=True")
    return RedisUrl(
        topology=topology,
        tls=tls,
        hosts=hosts,
        path=path,
        username=unquote(user) or None,
        password=unquote(password) or None,
        database=_number(database, "database"),
        service=service,
        ca_file=options.get("ca_file"),
    )


def _options(query: str, tls: bool) -> dict[str, str]:  # noqa: FBT001 - one caller, beside it
    options = dict(parse_qsl(query, keep_blank_values=True))
    allowed = {"db", "ca_file"} if tls else {"db"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise _wrong(f"unknown option {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    return options


def _host_port(text: str, topology: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return host.lower(), _number(port, "port") if port else _DEFAULT_PORT[topology]


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise _wrong(f"the {what} must be a number up to 65535")
    return int(text)


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"not a usable Redis URL: {why}", parameter="url")
