"""Alerts for failed units, sent through the application's alerting, which deduplicates and spools them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mks_deploy.environment_file import register_own_variables
from mks_hardening import compose
from mks_hardening.logging import remove_logging
from mks_hardening.settings import HardeningSettings

__all__ = ["send_alert"]


def send_alert(unit: str, *, environ: Mapping[str, str]) -> None:
    """Send an alert, and wait until it is delivered or spooled.

    Raises:
        SettingsError: the environment is not that of the application.
    """
    register_own_variables(environ)
    # The application's default language; its environment takes precedence.
    compose.setup_logging_with_notifications(
        HardeningSettings.from_env(environ={"MKS_ALERT_LANGUAGE": "ja", **environ})
    )
    logging.getLogger("mks_deploy").error(
        "the unit %s failed: journalctl -u %s", unit, unit, extra={"unit": unit}
    )
    remove_logging()
