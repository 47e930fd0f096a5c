"""``HardeningSettings``: the settings of all packages."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from mks_hardening._core.checks import instance, offers
from mks_hardening._core.environment.variables import Environment
from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.settings._cross_checks import cross_check_errors
from mks_hardening.settings._variables import read
from mks_hardening.settings.definitions import (
    AREAS,
    CacheSettings,
    CoreSettings,
    DatabaseSettings,
    LoggingSettings,
    NotifySettings,
    SecuritySettings,
    WsgiSettings,
)
from mks_hardening.settings.variable_table import unknown_variables, variables

__all__ = ["HardeningSettings", "environment_of", "read_hardening"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HardeningSettings:
    """Settings of all packages."""

    core: CoreSettings = field(default_factory=CoreSettings)
    wsgi: WsgiSettings = field(default_factory=WsgiSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    db: DatabaseSettings = field(default_factory=DatabaseSettings)

    @classmethod
    def from_env(cls, prefix: str = "MKS_", *, environ: Mapping[str, str] | None = None) -> Self:
        """Read all settings from environment variables.

        A secret may be read from a file, named by the variable with the suffix ``_FILE``.

        Args:
            prefix: prefix of the variable names.
            environ: variables, instead of the process's environment.

        Raises:
            ConfigurationError: ``prefix`` is not a ``str`` or is empty, or ``environ`` is not a mapping.
            SettingsError: at least one variable or combination is invalid; all errors are listed.

        Warns:
            SettingsWarning: an unknown variable has the prefix.
        """
        source = environment_of(environ)
        settings = read_hardening(cls, source, prefix)
        # All in one message: fixing them one at a time would need a restart for each.
        if source.errors:
            raise SettingsError(tuple(source.errors))
        # After the errors, as a misspelt name is often the cause of one.
        for warning in unknown_variables(source.names(prefix), variables(prefix)):
            warnings.warn(warning, SettingsWarning, stacklevel=2)
        return settings


H = TypeVar("H", bound=HardeningSettings)


def environment_of(environ: Mapping[str, str] | None) -> Environment:
    """Return the variables to read.

    Raises:
        ConfigurationError: ``environ`` is not a mapping.
    """
    if environ is not None:
        offers(environ, "get", "__iter__", parameter="environ", kind="a mapping of variables")
    return Environment(environ)


def read_hardening(kind: type[H], source: Environment, prefix: str) -> H:
    """Return the settings; ``source`` collects the errors, and the defaults are used instead.

    Raises:
        ConfigurationError: ``prefix`` is not a ``str`` or is empty.
    """
    if not instance(prefix, str, parameter="prefix"):
        raise ConfigurationError(
            "prefix must not be empty: any variable would be a setting", parameter="prefix"
        )
    areas: dict[str, Any] = {name: read(area, source, prefix) for name, area in AREAS.items()}
    settings = kind(**areas)
    source.errors.extend(cross_check_errors(settings, prefix))
    return settings
