"""Exceptions of this package, with their details as attributes.

``MksHardeningError`` is the base class and is never raised itself. The exceptions carry data, can be pickled and
copied, and never contain a secret: a parameter is described by its name and type, not by its value.
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
    "RequestLimitError",
    "RequestTimeoutError",
    "SettingsError",
    "SettingsWarning",
    "TaskCancelledError",
    "TaskLostError",
    "TaskRefusedError",
    "TaskRetryError",
]


class MksHardeningError(Exception):
    """Base class of all exceptions of this package; catch it, never raise it."""

    def __reduce__(self) -> tuple[object, ...]:
        # The implementation of Exception calls the constructor with ``args``, which holds the message here.
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(MksHardeningError, ValueError):
    """An invalid parameter or combination of parameters.

    Attributes:
        parameter: name of the parameter, or an empty string if a combination is invalid.
    """

    def __init__(self, message: str, *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class SettingsError(ConfigurationError):
    """Invalid settings in the environment; all of them are listed at once.

    Attributes:
        errors: one sentence for each invalid setting, in the order of the variables.
    """

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__(
            "\n".join((f"{len(errors)} invalid setting(s):", *(f"  - {error}" for error in errors)))
        )
        self.errors = errors


class RequestLimitError(MksHardeningError):
    """A request body exceeded a limit of ``RequestLimitsMiddleware`` while the application was reading it.

    Let it pass: the middleware responds in place of the application, whatever that makes of the exception.

    Attributes:
        rule: the limit, ``body`` (bytes), ``body_seconds`` or ``content_types``.
        status: status code of the response, 413, 408 or 415.
    """

    def __init__(self, rule: str, status: int) -> None:
        super().__init__(f"the request body exceeds the limit {rule}")
        self.rule = rule
        self.status = status


class RequestTimeoutError(MksHardeningError, TimeoutError):
    """The deadline of a request has passed (``RequestTimeoutMiddleware``).

    Let it pass: the client gets 504 unless the response has begun.

    Attributes:
        seconds: seconds that the request had.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the deadline of the request, {seconds:g} s, has passed")
        self.seconds = seconds


class SettingsWarning(UserWarning):
    """Unknown environment variable with our prefix, probably misspelt."""


class MissingDependencyError(MksHardeningError, ImportError):
    """A third-party package that an extra provides is not installed.

    Attributes:
        package: the missing top-level package.
        extra: the extra of ``mks-hardening`` that installs it.
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
    """A server outside the process did not return a usable response within the time budget.

    Attributes:
        backend: name of the backend, for example ``"redis"``; never a URL with credentials.
        reason: one word: ``refused``, ``reset``, ``timeout``, ``open`` (circuit breaker), ``budget``, ``protocol``,
            ``auth``, ``denied`` (by an ACL), ``readonly``, ``oom``, ``loading``, ``busy``, ``clients``, ``pool``
            (all connections of this process are in use), ``uncovered`` (a cluster slot without a node), ``moved``
            (a cluster addressed as a single server), ``closed``, ``certificate``, ``tls``, ``dns`` (temporary
            resolver failure), ``unknown-host``, ``unreachable`` or ``error``.
        operation: the operation that failed, without its values.
        sent: whether the request may have reached the server (``False`` means certainly not).
        retry_after: seconds after which a retry makes sense, if known.
        detail: message of the server, without values; empty if ``reason`` is sufficient.
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
    """Stored bytes cannot be decoded: corrupted, forged, written by a newer version, or beyond a limit.

    The limits are those of ``EncodeError``: bytes, depth and number of items.

    Attributes:
        newer: whether the bytes were written by a newer version, so that they must not be overwritten.
    """

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class EncodeError(MksHardeningError, ValueError):
    """A value cannot be stored: unsupported type, too large, nested too deeply, or too many items."""


class InvalidCodeError(MksHardeningError):
    """A required code was not accepted.

    Attributes:
        reason: ``wrong``, ``replayed``, ``malformed``, ``locked``, ``not_enrolled``, ``no_enrolment``,
            ``expired``; for a passkey also ``cloned``, ``known`` (already registered), ``synced`` (the site does
            not accept synced passkeys) or ``too_many``.
        retry_after: seconds until the next code is checked, if known.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"the code was not accepted ({reason})")
        self.reason = reason
        self.retry_after = retry_after


class RateLimitExceededError(MksHardeningError):
    """A decorated function was not called because a rate limit was exceeded.

    Attributes:
        group: the group of limits.
        decision: the decision to reject the call, for ``rate_limit_headers``.
    """

    def __init__(self, group: str, decision: LimitDecision) -> None:
        super().__init__(f"the rate limit {group!r} is reached")
        self.group = group
        self.decision = decision


class ConcurrencyExceededError(MksHardeningError):
    """A concurrency limit is reached.

    Attributes:
        limit: name of the limit.
        quota: number of concurrent calls that it allows.
        retry_after: seconds until the first lease of another caller expires, if known.
    """

    def __init__(self, limit: str, quota: int, *, retry_after: float | None = None) -> None:
        super().__init__(f"the concurrency limit {limit!r} is reached: {quota} at once")
        self.limit = limit
        self.quota = quota
        self.retry_after = retry_after


class PaceTimeoutError(MksHardeningError, TimeoutError):
    """The next slot of a paced call is too far ahead; the call neither waited nor reserved a slot.

    Attributes:
        group: the group of limits that sets the pace.
        wait: seconds until the next slot.
        timeout: longest wait in seconds that the caller allowed.
    """

    def __init__(self, group: str, wait: float, *, timeout: float) -> None:
        super().__init__(
            f"the next turn in {group!r} comes in {wait:.3g} s, later than the timeout of {timeout:g} s"
        )
        self.group = group
        self.wait = wait
        self.timeout = timeout


class TaskRefusedError(MksHardeningError, ValueError):
    """A task was rejected: unknown name, arguments that are not JSON, or too many; nothing was stored."""


class TaskLostError(MksHardeningError):
    """The lease of a task has expired and another worker may run it; stop without further side effects."""


class TaskRetryError(MksHardeningError):
    """Raised by a task to be run again later.

    With ``after``, the retry is not counted as a failure: it may be repeated without limit, and ``max_attempts``
    does not apply.

    Attributes:
        after: delay in seconds or as a ``timedelta``; ``None`` for the usual back-off, which counts as a failure.
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        super().__init__("the task asks to be run again")
        self.after = after


class TaskCancelledError(MksHardeningError):
    """Cancellation of a running task was requested."""


class DeliveryError(MksHardeningError):
    """An alert or a mail was not delivered.

    Attributes:
        reason: a few words or a status, for example ``timeout``, ``certificate``, ``smtp-550`` or ``http-429``;
            never a URL.
        temporary: whether a retry makes sense.
        retry_after: seconds to wait before a retry, if the destination requested a delay.
        partial: whether the message was delivered to some recipients only: it counts as delivered and is not sent
            again, and the reason is reported. If it is also ``temporary``, delivery to the remaining recipients is
            retried the usual number of times first.
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
