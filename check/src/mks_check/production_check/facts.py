"""What checks judge: plain values, read beforehand by the module of each source.

The facts of the other sources have modules of their own, so that a check of settings alone imports little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_check.production_check.application_facts import ApplicationFacts
    from mks_check.production_check.config_files import ConfigFiles
    from mks_check.production_check.host_facts import HostFacts
    from mks_check.production_check.live_facts import LiveFacts
    from mks_hardening.settings import HardeningSettings

__all__ = ["Facts", "SettingFacts"]


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
class Facts:
    """Everything that was read; a part that was not requested is ``None``.

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
