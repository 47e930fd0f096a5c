"""Typed settings of all packages, read from the environment in one step, with all errors reported at once."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.settings.application_settings": ["ApplicationSettings", "setting"],
    "mks_hardening.settings.definitions": [
        "CacheSettings",
        "CoreSettings",
        "DatabaseSettings",
        "LoggingSettings",
        "NotifySettings",
        "SecuritySettings",
        "WsgiSettings",
    ],
    "mks_hardening.settings.hardening": ["HardeningSettings"],
    "mks_hardening.settings.variable_table": ["Variable", "register_variables", "variables"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
