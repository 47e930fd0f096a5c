"""Every error this package raises, with its facts as attributes.

``MksHardeningError`` is the root and is never raised itself. Errors carry data, can be pickled and copied,
and never hold a secret: a parameter is described by its name and type, not by its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision

__all__ = [
    "BackendUnavailableError",
    "ConfigurationError",
    "DecodeError",
    "DeliveryError",
    "EncodeError",
    "InvalidCodeError",
    "MissingDependencyError",
    "MksHardeningError",
    "RateLimitExceededError",
    "SettingsError",
    "SettingsWarning",
]


class MksHardeningError(Exception):
    """Root of all errors of this package; catch it, never raise it."""


class ConfigurationError(MksHardeningError, ValueError):
    """An object was built with an impossible parameter.

    Attributes:
        parameter: name of the parameter, or an empty string where the fault is a combination.
    """

    def __init__(self, message: str, *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


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
        return type(self), (self.package, self.extra)


class BackendUnavailableError(MksHardeningError):
    """A server outside the process did not give a usable answer within the budget.

    Attributes:
        backend: what was asked, for example ``"redis"``; never a URL with credentials.
        reason: one word: ``refused``, ``reset``, ``timeout``, ``open`` (breaker), ``budget``, ``protocol``,
            ``auth``, ``readonly``, ``oom``, ``loading``, ``busy``, ``clients``, ``closed`` or ``error``.
        operation: the operation that failed, without its values.
        sent: whether the request may have reached the server (``False`` means certainly not).
        retry_after: seconds after which asking again makes sense, if known.
    """

    def __init__(
        self,
        backend: str,
        reason: str,
        *,
        operation: str = "",
        sent: bool = True,
        retry_after: float | None = None,
    ) -> None:
        what = f" during {operation}" if operation else ""
        super().__init__(f"{backend} is unavailable ({reason}){what}")
        self.backend = backend
        self.reason = reason
        self.operation = operation
        self.sent = sent
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class DecodeError(MksHardeningError, ValueError):
    """Stored bytes are not what this version writes: damaged, forged, too large, too deep or of a newer version.

    Attributes:
        newer: whether the bytes carry a version newer than ours, so that they must be left alone.
    """

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class EncodeError(MksHardeningError, ValueError):
    """A value cannot be stored: its type is not data, or it is too large or too deep."""


class InvalidCodeError(MksHardeningError):
    """A code that was needed to go on was not accepted.

    Attributes:
        reason: ``wrong``, ``replayed``, ``malformed``, ``locked``, ``not_enrolled``, ``no_enrolment``
            or ``expired``.
        retry_after: seconds until a code is looked at again, if known.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"the code was not accepted ({reason})")
        self.reason = reason
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


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

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class DeliveryError(MksHardeningError):
    """An alert was not delivered.

    Attributes:
        reason: one word or a status, for example ``timeout``, ``tls``, ``smtp-550`` or ``http-429``; never a URL.
        temporary: whether trying again makes sense.
        retry_after: seconds the destination asked to be left alone, if it did.
    """

    def __init__(self, reason: str, *, temporary: bool, retry_after: float | None = None) -> None:
        super().__init__(f"not delivered ({reason})")
        self.reason = reason
        self.temporary = temporary
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
