"""Security events in the log, whether anybody observes them or not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mks_hardening.events import SignInEvent

if TYPE_CHECKING:
    from mks_hardening.events import TwoFactorEvent

__all__ = ["log_security_event"]

_logger: Final = logging.getLogger("mks_hardening.security")
_WARNINGS: Final = frozenset({"limited", "locked", "passkey_cloned"})


def log_security_event(event: SignInEvent | TwoFactorEvent) -> None:
    """Log an event (ASVS 5.0, 16.3.1).

    The record has the fields ``security_event`` (``sign_in.refused``, for example), ``user_id``, ``client_key``,
    ``reason``, ``actor`` and ``auth_method``, as far as they are known. Refusals, failures and locks are warnings.
    """
    change = event.change
    bad = change in _WARNINGS or change.endswith(("refused", "failed"))
    level = logging.WARNING if bad else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    area, client = ("sign_in", event.client) if isinstance(event, SignInEvent) else ("second_factor", "")
    name = f"{area}.{change}"
    fields = {
        "user_id": event.user_id,
        "client_key": client,
        "reason": event.reason,
        "actor": event.actor,
        "auth_method": event.method,
    }
    known = {field: value for field, value in fields.items() if value}
    # In the message too, for handlers that show nothing else. In one line: an administrator's reason is free text.
    shown = "".join(
        f", {field} {value if value.isprintable() else ascii(value)}" for field, value in known.items()
    )
    _logger.log(level, "%s%s", name, shown, extra={"security_event": name, **known})
