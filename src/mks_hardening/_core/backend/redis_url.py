"""Redis URLs and the targets they name, without network access and without the client library.

``redis://`` and ``rediss://`` (with ACL user and database), ``unix://``, ``redis+sentinel://host,host/service/db``
and ``redis+cluster://host,host`` (``rediss+…`` for TLS). Options after ``?``: ``db``; with TLS ``ca_file``; for
sentinels with their own credentials ``sentinel_username`` and ``sentinel_password``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mks_hardening._core.loopback import is_loopback
from mks_hardening.exceptions import ConfigurationError

__all__ = ["RedisTarget", "Topology", "parse_redis_url"]

Topology = Literal["single", "sentinel", "cluster"]

_SCHEMES: Final[Mapping[str, tuple[Topology, bool]]] = MappingProxyType(
    {
        "redis": ("single", False),
        "rediss": ("single", True),
        "unix": ("single", False),
        "redis+sentinel": ("sentinel", False),
        "rediss+sentinel": ("sentinel", True),
        "redis+cluster": ("cluster", False),
        "rediss+cluster": ("cluster", True),
    }
)
_DEFAULT_PORT: Final[Mapping[Topology, int]] = MappingProxyType(
    {"single": 6379, "sentinel": 26379, "cluster": 6379}
)
_LARGEST_NUMBER: Final = 65535
_PLACE: Final = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]+://)(?P<place>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_ENCODE: Final = "percent-encode / ? # in the password as %2F %3F %23"


class RedisTarget(NamedTuple):
    """A checked address with its credentials: equal targets are one server and share connections.

    Attributes:
        topology: single server, primary behind sentinels, or cluster.
        tls: whether connections to the servers use TLS.
        hosts: host and port of each server, sentinel or startup node of the cluster.
        path: Unix socket path, or empty.
        username: ACL user.
        password: password of the ACL user.
        database: database number.
        service: name of the primary at the sentinels.
        sentinel_username: ACL user for the sentinels themselves.
        sentinel_password: password for the sentinels.
        sentinel_tls: whether connections to the sentinels use TLS.
        tls_options: ``ssl_…`` options of redis-py, as pairs.
        credential_provider: credential provider of redis-py, taken from a client that was passed in.
    """

    topology: Topology = "single"
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    username: str | None = None
    password: str | None = None
    database: int = 0
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    sentinel_tls: bool = False
    tls_options: tuple[tuple[str, Hashable], ...] = ()
    credential_provider: Hashable = None

    @property
    def address(self) -> str:
        """The address without credentials, for names, logs and errors."""
        return self.path or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    @property
    def server(self) -> RedisTarget:
        """The target without the database: all databases of a server are up or down together."""
        return self._replace(database=0)

    def __repr__(self) -> str:
        return f"RedisTarget({self.topology}, {self.address}, database={self.database}, tls={self.tls})"


def parse_redis_url(url: str, *, allow_plaintext: bool = False) -> RedisTarget:
    """Parse and check a Redis URL.

    Raises:
        ConfigurationError: unknown scheme, no host, a bad port or database, an unknown option, or plaintext to
            another machine without ``allow_plaintext=True``. The message never contains any part of the URL.
    """
    try:
        parts = _split(url)
    except ValueError:
        raise _wrong("the host cannot be parsed") from None
    if parts.scheme not in _SCHEMES:
        raise _wrong(f"the scheme must be one of {', '.join(_SCHEMES)}")
    topology, tls = _SCHEMES[parts.scheme]
    _refuse_cut_password(parts)
    userinfo, _, hostlist = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    options = _options(parts.query, topology, tls=tls)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    path = unquote(parts.path) if parts.scheme == "unix" else ""
    if path and hostlist:
        raise _wrong("a socket path begins with three slashes: unix:///run/redis.sock")
    service = segments.pop(0) if topology == "sentinel" and segments else ""
    if topology == "sentinel" and not service:
        raise _wrong("a sentinel URL contains the service name: redis+sentinel://host:26379/service/0")
    database = _database([] if path else segments, options)
    if topology == "single" and "," in hostlist:
        raise _wrong("it has several hosts; use redis+cluster:// or redis+sentinel://")
    if topology == "cluster" and database:
        raise _wrong("a cluster has only database 0")
    hosts = tuple(_host_port(item, topology) for item in hostlist.split(",")) if not path else ()
    if not path and not all(host for host, _ in hosts):
        raise _wrong("it has no host")
    if not tls and not allow_plaintext and not all(is_loopback(host) for host, _ in hosts):
        raise _wrong("clear text is allowed on loopback only; use rediss:// or allow_plaintext=True")
    return RedisTarget(
        topology=topology,
        tls=tls,
        hosts=hosts,
        path=path,
        username=unquote(user) or None,
        password=unquote(password) or None,
        database=database,
        service=service,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        sentinel_tls=tls,
        tls_options=(("ssl_ca_certs", options["ca_file"]),) if "ca_file" in options else (),
    )


def _split(url: str) -> SplitResult:
    # Newer Python releases require brackets to enclose the whole host, but our URLs may contain several hosts.
    found = _PLACE.fullmatch(url)
    if found is None or "[" not in found["place"]:
        return urlsplit(url)
    for host in found["place"].rpartition("@")[2].split(","):
        urlsplit(f"//{host}")
    return urlsplit(found["scheme"] + found["rest"])._replace(netloc=found["place"])


def _refuse_cut_password(parts: SplitResult) -> None:
    # A raw "/", "?" or "#" in the password ends the authority (RFC 3986, 3.2), and the rest of the password would
    # be parsed, and reported, as something else.
    if parts.fragment or (parts.scheme != "unix" and "@" in parts.path):
        raise _wrong(_ENCODE)


def _database(segments: list[str], options: Mapping[str, str]) -> int:
    given = [*segments, *([options["db"]] if "db" in options else [])]
    if len(given) > 1:
        raise _wrong("it has more than one database")
    return _number(given[0], "database") if given else 0


def _options(query: str, topology: Topology, *, tls: bool) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    allowed = {"db"}
    if tls:
        allowed.add("ca_file")
    if topology == "sentinel":
        allowed |= {"sentinel_username", "sentinel_password"}
    if not options.keys() <= allowed and "@" in query:
        raise _wrong(_ENCODE)
    if not options.keys() <= allowed:
        raise _wrong(f"it has an unknown option; allowed: {', '.join(sorted(allowed))}")
    if len(options) < len(pairs):
        raise _wrong("an option is given twice")
    if not all(options.values()):
        raise _wrong("it has an option without a value")
    return options


def _host_port(text: str, topology: Topology) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return host.lower(), _number(port, "port", least=1) if port else _DEFAULT_PORT[topology]


def _number(text: str, what: str, *, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= _LARGEST_NUMBER):
        raise _wrong(f"the {what} must be a number from {least} to {_LARGEST_NUMBER}")
    return int(text)


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"not a usable Redis URL: {why}", parameter="url")
