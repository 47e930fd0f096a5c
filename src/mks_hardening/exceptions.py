"""Every error this package raises, with its facts as attributes.

``MksHardeningError`` is the root and is never raised itself. Errors carry data, can be pickled and copied,
and never hold a secret: a parameter is described by its name and type, not by its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from mks_hardening.protocols import LimitDecision

__all__ = [
    "BackendUnavailableError",
    "ConcurrencyExceededError",
    "ConfigurationError",
    "DecodeError",
    "DeliveryError",
    "EncodeError",
    "InvalidCodeError",
    "MissingDependencyError",
    "MksHardeningError",
    "PaceTimeoutError",
    "RateLimitExceededError",
    "SettingsError",
    "SettingsWarning",
    "TaskCancelledError",
    "TaskLostError",
    "TaskRefusedError",
    "TaskRetryError",
]


class MksHardeningError(Exception):
    """Root of all errors of this package; catch it, never raise it."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the constructor with ``args``, which are the message here.
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(MksHardeningError, ValueError):
    """An object was built with an impossible parameter.

    Attributes:
        parameter: name of the parameter, or an empty string where the fault is a combination.
    """

    def __init__(self, message: str, *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class SettingsError(ConfigurationError):
    """The environment holds faulty settings; every fault is listed at once.

    Attributes:
        faults: one sentence for each fault, in the order of the variables.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(
            "\n".join((f"{len(faults)} faulty setting(s):", *(f"  - {fault}" for fault in faults)))
        )
        self.faults = faults


class SettingsWarning(UserWarning):
    """A variable with our prefix that nobody knows, probably misspelt."""


class MissingDependencyError(MksHardeningError, ImportError):
    """A third-party package that an extra brings is not installed.

    Attributes:
        package: the top-level package that is missing.
        extra: the extra of ``mks-hardening`` that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; it comes with the extra {extra!r}: "
            f"pip install 'mks-hardening[{extra}]'",
            name=package,
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.package, self.extra)  # ImportError keeps ``name`` outside ``__dict__``


class BackendUnavailableError(MksHardeningError):
    """A server outside the process did not give a usable answer within the budget.

    Attributes:
        backend: what was asked, for example ``"redis"``; never a URL with credentials.
        reason: one word: ``refused``, ``reset``, ``timeout``, ``open`` (breaker), ``budget``, ``protocol``,
            ``auth``, ``denied`` (by an ACL), ``readonly``, ``oom``, ``loading``, ``busy``, ``clients``, ``pool``
            (all connections of ours in use), ``uncovered`` (a slot of a cluster), ``moved`` (a key of a cluster
            that was addressed as one server), ``closed``, ``certificate``, ``tls``, ``dns`` (no answer for now),
            ``unknown-host``, ``unreachable`` or ``error``.
        operation: the operation that failed, without its values.
        sent: whether the request may have reached the server (``False`` means certainly not).
        retry_after: seconds after which asking again makes sense, if known.
        detail: what the server said, without values; empty where ``reason`` says it all.
    """

    def __init__(
        self,
        backend: str,
        reason: str,
        *,
        operation: str = "",
        sent: bool = True,
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        what = f" during {operation}" if operation else ""
        super().__init__(f"{backend} is unavailable ({reason}){what}{f': {detail}' if detail else ''}")
        self.backend = backend
        self.reason = reason
        self.operation = operation
        self.sent = sent
        self.retry_after = retry_after
        self.detail = detail


class DecodeError(MksHardeningError, ValueError):
    """Stored bytes are not what this version writes: damaged, forged, of a newer version, or beyond a limit.

    The limits are those of ``EncodeError``: bytes, depth and number of items.

    Attributes:
        newer: whether the bytes carry a version newer than ours, so that they must be left alone.
    """

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class EncodeError(MksHardeningError, ValueError):
    """A value cannot be stored: its type is not data, or it is too large, too deep or has too many items."""


class InvalidCodeError(MksHardeningError):
    """A code that was needed to go on was not accepted.

    Attributes:
        reason: ``wrong``, ``replayed``, ``malformed``, ``locked``, ``not_enrolled``, ``no_enrolment``,
            ``expired``; of a passkey also ``cloned``, ``known`` (it is registered already), ``synced`` (the site
            takes none that are copied) or ``too_many``.
        retry_after: seconds until a code is looked at again, if known.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"the code was not accepted ({reason})")
        self.reason = reason
        self.retry_after = retry_after


class RateLimitExceededError(MksHardeningError):
    """A decorated function was not called because a limit was reached.

    Attributes:
        group: the group of limits.
        decision: the refusal, for ``rate_limit_headers``.
    """

    def __init__(self, group: str, decision: LimitDecision) -> None:
        super().__init__(f"the rate limit {group!r} is reached")
        self.group = group
        self.decision = decision


class ConcurrencyExceededError(MksHardeningError):
    """As much was under way at once as a limit allows.

    Attributes:
        limit: name of the limit.
        quota: how much it allows.
        retry_after: seconds after which the first lease of others runs out, if known.
    """

    def __init__(self, limit: str, quota: int, *, retry_after: float | None = None) -> None:
        super().__init__(f"the concurrency limit {limit!r} is reached: {quota} at once")
        self.limit = limit
        self.quota = quota
        self.retry_after = retry_after


class PaceTimeoutError(MksHardeningError, TimeoutError):
    """A call's turn to go out would not have come in time; nothing was waited for, and nothing reserved.

    Attributes:
        group: the group of limits that set the pace.
        wait: seconds until the turn would have come.
        timeout: seconds that it might have been away.
    """

    def __init__(self, group: str, wait: float, *, timeout: float) -> None:
        super().__init__(f"the next turn in {group!r} comes in {wait:.3g} s, and may take {timeout:g} s")
        self.group = group
        self.wait = wait
        self.timeout = timeout


class TaskRefusedError(MksHardeningError, ValueError):
    """A task was not accepted: unknown name, arguments that are not JSON, or too many; nothing was stored."""


class TaskLostError(MksHardeningError):
    """The lease on a task ran out and another worker may have it: stop, and have no more effect."""


class TaskRetryError(MksHardeningError):
    """Raised by a task that wants to be run again later.

    With ``after`` nothing has failed: the task may ask as often as it likes, and ``max_attempts`` is left alone.

    Attributes:
        after: seconds until then, or a ``timedelta``; ``None`` for the usual back-off, which counts as a failure.
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        super().__init__("the task asks to be run again")
        self.after = after


class TaskCancelledError(MksHardeningError):
    """Somebody asked a running task to stop."""


class DeliveryError(MksHardeningError):
    """An alert or a mail was not delivered.

    Attributes:
        reason: a few words or a status, for example ``timeout``, ``certificate``, ``smtp-550`` or ``http-429``;
            never a URL.
        temporary: whether trying again makes sense.
        retry_after: seconds the destination asked to be left alone, if it did.
        partial: whether the message was delivered, but not to everyone: it counts as delivered and is not sent
            again, and the reason is reported. With ``temporary`` it is sent to the others for the usual number of
            tries before.
    """

    def __init__(
        self, reason: str, *, temporary: bool, retry_after: float | None = None, partial: bool = False
    ) -> None:
        super().__init__(f"not delivered ({reason})")
        self.reason = reason
        self.temporary = temporary
        self.retry_after = retry_after
        self.partial = partial


def _rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
