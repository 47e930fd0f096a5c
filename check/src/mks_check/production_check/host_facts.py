"""What checks judge of a machine: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HostFacts"]


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
