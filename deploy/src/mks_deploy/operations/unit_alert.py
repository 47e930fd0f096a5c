"""Alerts for failed units, sent through the application's alerting, which deduplicates and spools them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mks_deploy.environment_file import register_own_variables
from mks_hardening import compose
from mks_hardening.events import AlertsCounted, add_observer, remove_observer
from mks_hardening.logging import remove_logging
from mks_hardening.settings import HardeningSettings

__all__ = ["send_alert"]


def send_alert(unit: str, *, environ: Mapping[str, str]) -> int:
    """Send an alert, and wait until it is delivered or spooled.

    Args:
        unit: unit that failed; empty to test the channels.
        environ: variables of the application.

    Returns:
        how many alerts the channels accepted now.

    Raises:
        SettingsError: the environment is not that of the application.
    """
    register_own_variables(environ)
    # The application's default language; its environment takes precedence.
    compose.setup_logging_with_notifications(
        HardeningSettings.from_env(environ={"MKS_ALERT_LANGUAGE": "ja", **environ})
    )
    delivered = 0

    def count(event: object) -> None:
        nonlocal delivered
        if isinstance(event, AlertsCounted) and event.state == "delivered":
            delivered += event.number

    add_observer(count)
    try:
        logger = logging.getLogger("mks_deploy")
        if unit:
            logger.error("the unit %s failed: journalctl -u %s", unit, unit, extra={"unit": unit})
        else:
            logger.error("this is a test of the alerts (mks-deploy alert --test): nothing failed")
        remove_logging()
    finally:
        remove_observer(count)
    return delivered
