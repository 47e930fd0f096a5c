"""The settings of all areas together."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from mks_hardening._core.checks import instance, offers
from mks_hardening._core.environment.variables import Environment
from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.settings._cross_checks import combined_faults
from mks_hardening.settings._variables import read
from mks_hardening.settings.definitions import (
    CacheSettings,
    CoreSettings,
    DatabaseSettings,
    LoggingSettings,
    NotifySettings,
    SecuritySettings,
    WsgiSettings,
)
from mks_hardening.settings.variable_table import unknown_variables

__all__ = ["HardeningSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HardeningSettings:
    """The settings of all areas."""

    core: CoreSettings = field(default_factory=CoreSettings)
    wsgi: WsgiSettings = field(default_factory=WsgiSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    db: DatabaseSettings = field(default_factory=DatabaseSettings)

    @classmethod
    def from_env(cls, prefix: str = "MKS_", *, environ: Mapping[str, str] | None = None) -> Self:
        """Read all settings.

        A secret may come from a file named by the variable with ``_FILE`` behind it.

        Args:
            prefix: first part of the variables' names.
            environ: variables, instead of the process's environment.

        Raises:
            ConfigurationError: ``prefix`` is no ``str`` or empty, or ``environ`` no mapping.
            SettingsError: at least one variable is faulty, or a combination is; all faults are listed.

        Warns:
            SettingsWarning: a variable with the prefix that nobody knows.
        """
        if not instance(prefix, str, parameter="prefix"):
            raise ConfigurationError(
                "prefix must not be empty: any variable would be a setting", parameter="prefix"
            )
        if environ is not None:
            offers(environ, "get", "__iter__", parameter="environ", kind="a mapping of variables")
        source = Environment(environ)
        settings = cls(
            core=read(CoreSettings, source, prefix),
            wsgi=read(WsgiSettings, source, prefix),
            logging=read(LoggingSettings, source, prefix),
            notify=read(NotifySettings, source, prefix),
            cache=read(CacheSettings, source, prefix),
            security=read(SecuritySettings, source, prefix),
            db=read(DatabaseSettings, source, prefix),
        )
        # All in one message: an operator who mends one at a time restarts once for each.
        faults = (*source.faults, *combined_faults(settings, prefix))
        if faults:
            raise SettingsError(faults)
        # After the faults, as a misspelt name is often the cause of one.
        for warning in unknown_variables(source.names(prefix), prefix):
            warnings.warn(warning, SettingsWarning, stacklevel=2)
        return settings
