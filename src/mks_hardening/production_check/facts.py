"""What checks judge: plain values, read beforehand by the module of each source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening.production_check.config_files import ConfigFiles
    from mks_hardening.production_check.http_response import HttpResponse
    from mks_hardening.settings import HardeningSettings

__all__ = [
    "AdapterFinding",
    "ApplicationFacts",
    "CorsFacts",
    "Facts",
    "HostFacts",
    "LiveFacts",
    "RouteFacts",
    "SettingFacts",
    "TlsFacts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingFacts:
    """Environment variables.

    Attributes:
        variables: values by name.
        file: the file that they were read from; empty for the environment of a process.
        lines: line of each variable in that file.
        errors: invalid settings of this package, one sentence each.
        unknown: variables with our prefix that nothing reads, one sentence each.
        hardening: settings of this package, with defaults in place of invalid ones.
    """

    variables: Mapping[str, str]
    hardening: HardeningSettings
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict[str, int])
    errors: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFacts:
    """One route: its path, methods, and the names of blocking calls in an asynchronous view."""

    path: str
    methods: frozenset[str]
    blocking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsFacts:
    """One CORS policy: whether any origin is allowed, with or without credentials."""

    any_origin: bool
    credentials: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFinding:
    """A finding of the check that an adapter already has."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationFacts:
    """An imported application.

    Attributes:
        target: how it was named.
        error: why it could not be imported; empty if it was.
        framework: ``flask``, ``django``, ``starlette`` (FastAPI too), or empty.
        wrappers: class names of middleware from the outside in, and of the application.
        config: settings of the framework.
        debug: whether its debug mode is on.
        trusted: networks that our middleware trusts as proxies; ``None`` without that middleware.
        routes: its routes, if the framework lists them.
        cors: its CORS policies.
        session_store: class name of the session store; empty if none was found.
        threads: names of threads that the import has started.
        documentation: path of the generated API documentation; empty if it is off.
        adapter_findings: findings of the adapter's own check.
    """

    target: str
    error: str = ""
    framework: str = ""
    wrappers: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict[str, object])
    debug: bool = False
    trusted: tuple[str, ...] | None = None
    routes: tuple[RouteFacts, ...] = ()
    cors: tuple[CorsFacts, ...] = ()
    session_store: str = ""
    threads: tuple[str, ...] = ()
    documentation: str = ""
    adapter_findings: tuple[AdapterFinding, ...] = ()

    def has(self, *names: str) -> bool:
        """Return whether one of these classes is among the wrappers."""
        return not frozenset(names).isdisjoint(self.wrappers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """The TLS handshakes with a site.

    Attributes:
        error: why the certificate was refused; empty if it was accepted.
        not_before: begin of the certificate's validity, as a Unix time; 0 if unknown.
        not_after: its end.
        old_versions: versions before TLS 1.2 that the server accepted.
    """

    error: str = ""
    not_before: float = 0
    not_after: float = 0
    old_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFacts:
    """A site that runs.

    Attributes:
        url: its address.
        now: Unix time of the check.
        responses: responses by the name of the request.
        tls: the handshakes; ``None`` for ``http://``.
        marker: host name that was sent in spoofed header fields.
        body_limit: largest body that is promised, in bytes; ``None`` if nothing is promised.
    """

    url: str
    now: float
    responses: Mapping[str, HttpResponse]
    tls: TlsFacts | None = None
    marker: str = "spoofed.example.net"
    body_limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The machine.

    Attributes:
        synchronised: whether the clock is synchronised; ``None`` if unknown.
        modes: permissions of files that contain secrets, by path.
        writable: configuration files that everybody may write to, and their permissions.
        packages: versions of installed distributions, by normalised name.
        python: version of Python.
        free: free share of the disk and of its inodes, by folder.
        large_logs: sizes of log files in bytes, by path.
        listening: ports that listen on every address.
        root_processes: command names of application servers whose workers run as root.
        exposed_arguments: names of secrets on command lines, by command name.
        redis: ``maxmemory-policy``, ``appendonly``, ``save`` and ``maxmemory`` of the running Redis; ``None`` if
            it was not asked.
        max_connections: limit of the running PostgreSQL; ``None`` if it was not asked.
    """

    synchronised: bool | None = None
    modes: Mapping[str, int] = field(default_factory=dict[str, int])
    writable: Mapping[str, int] = field(default_factory=dict[str, int])
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    python: tuple[int, ...] = ()
    free: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    large_logs: Mapping[str, int] = field(default_factory=dict[str, int])
    listening: tuple[int, ...] = ()
    root_processes: tuple[str, ...] = ()
    exposed_arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    redis: Mapping[str, str] | None = None
    max_connections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that was read; a part that was not asked for is ``None``.

    Attributes:
        settings: environment variables.
        application: the imported application.
        files: files of a deployment.
        live: a site that runs.
        host: the machine.
        unreadable: what could not be read: what it is, and why.
    """

    settings: SettingFacts | None = None
    application: ApplicationFacts | None = None
    files: ConfigFiles | None = None
    live: LiveFacts | None = None
    host: HostFacts | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
