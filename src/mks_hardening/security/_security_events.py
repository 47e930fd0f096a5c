"""Log records of security events, with or without observers, and notices to the owners of accounts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from mks_hardening._core.operations import Call, Op
from mks_hardening.events import SignInEvent

if TYPE_CHECKING:
    from mks_hardening.events import TwoFactorEvent

__all__ = ["log_security_event", "send_notice"]


class _Notice(Protocol):
    @property
    def kind(self) -> str: ...


N = TypeVar("N", bound=_Notice)

_logger: Final = logging.getLogger("mks_hardening.security")
_WARNINGS: Final = frozenset({"limited", "locked", "passkey_cloned"})


def log_security_event(event: SignInEvent | TwoFactorEvent) -> None:
    """Log an event (ASVS 5.0, 16.3.1).

    The log record has the fields ``security_event`` (for example ``sign_in.refused``), ``user_id``,
    ``client_key``, ``reason``, ``actor`` and ``auth_method``, as far as they are known. Refusals, failures and
    locks are warnings.
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
    # The fields are in the message too, for handlers that print only that, and on one line: an administrator's
    # reason is free text.
    shown = "".join(
        f", {field} {value if value.isprintable() else ascii(value)}" for field, value in known.items()
    )
    _logger.log(level, "%s%s", name, shown, extra={"security_event": name, **known})


def send_notice(hook: Callable[[N], object], notice: N) -> Op[bool]:
    """Pass a notice to the application's hook; return whether the hook accepted it.

    A failure of the hook must neither undo the change nor reveal who has an account.
    """
    try:
        yield Call(lambda: hook(notice))
    except Exception as error:  # noqa: BLE001 - no failure of the hook undoes the change
        _logger.warning("the notice %s was not passed on (%s)", notice.kind, type(error).__name__)
        return False
    return True
