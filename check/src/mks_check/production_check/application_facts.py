"""What checks judge of an application: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["AdapterFinding", "ApplicationFacts", "CorsFacts", "RouteFacts"]


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
        wrappers: class names of middleware from the outside in, and of the application; those of other packages
            with their module.
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
        return not frozenset(names).isdisjoint(name.rpartition(".")[2] for name in self.wrappers)

    def is_outside(self, name: str, inner: str) -> bool:
        """Return whether a wrapper of this class is there, and none of the class ``inner`` around it."""
        names = [wrapper.rpartition(".")[2] for wrapper in self.wrappers]
        return name in names and inner not in names[: names.index(name)]
