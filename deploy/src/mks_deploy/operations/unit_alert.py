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


def send_alert(unit: str, *, environ: Mapping[str, str]) -> tuple[AlertsCounted, ...]:
    """Send an alert, and wait until it is delivered or spooled.

    Args:
        unit: unit that failed; empty to test the channels.
        environ: variables of the application.

    Returns:
        What became of it in each channel, with the reason; empty if no channel is set.

    Raises:
        SettingsError: the environment is not that of the application.
    """
    register_own_variables(environ)
    # The application's default language; its environment takes precedence.
    compose.setup_logging_with_notifications(
        HardeningSettings.from_env(environ={"MKS_ALERT_LANGUAGE": "ja", **environ})
    )
    outcomes = list[AlertsCounted]()

    def note(event: object) -> None:
        if isinstance(event, AlertsCounted):
            outcomes.append(event)

    add_observer(note)
    try:
        logger = logging.getLogger("mks_deploy")
        if unit:
            logger.error("the unit %s failed: journalctl -u %s", unit, unit, extra={"unit": unit})
        else:
            logger.error("this is a test of the alerts (mks-deploy alert --test): nothing failed")
        remove_logging()
    finally:
        remove_observer(note)
    return tuple(outcomes)
