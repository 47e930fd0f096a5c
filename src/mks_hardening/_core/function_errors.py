"""Functions of the application that decide about a request: their errors are logged, and decide nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.operations import require_sync_result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_predicate", "log_function_error"]

_RATE_LIMITS: Final = "mks_hardening.rate_limits"
_EVERY: Final = 60
_MOST_NAMES: Final = 100
_silent_until: Final[dict[str, float]] = {}


def call_predicate(
    given: Callable[..., object],
    *arguments: object,
    parameter: str,
    otherwise: str,
    logger: str = _RATE_LIMITS,
) -> bool:
    """Return whether a function of the application returns a true value; an error counts as no, and is logged.

    Args:
        given: the function.
        arguments: its arguments.
        parameter: the parameter it was given for, for the log.
        otherwise: what happens to the request after an error, for the log.
        logger: name of the logger.
    """
    try:
        return bool(require_sync_result(given(*arguments)))
    except Exception as error:  # noqa: BLE001 - an error of the function must not decide about the request
        log_function_error(given, error, parameter=parameter, otherwise=otherwise, logger=logger)
        return False


def log_function_error(
    given: object,
    error: Exception | None,
    *,
    parameter: str,
    otherwise: str,
    logger: str = _RATE_LIMITS,
) -> None:
    """Log that a function of the application raised or returned an invalid value, at most once a minute.

    The text of the error and the value are omitted: they may contain data of the request.

    Args:
        given: the function.
        error: what it raised; ``None`` if it returned an invalid value.
        parameter: the parameter it was given for.
        otherwise: what happens to the request.
        logger: name of the logger.
    """
    given = getattr(given, "func", given)  # of a functools.partial
    name = f"{getattr(given, '__module__', '')}.{getattr(given, '__qualname__', type(given).__qualname__)}"
    place, now = f"{parameter} {name}", SYSTEM_CLOCK.monotonic()
    if now < _silent_until.get(place, now):
        return
    if len(_silent_until) >= _MOST_NAMES:
        _silent_until.clear()
    _silent_until[place] = now + _EVERY
    import logging
    import traceback

    what = "returned an invalid value" if error is None else f"raised {type(error).__name__}"
    where = "" if error is None else "\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip()
    with suppress(Exception):  # a handler may raise too
        logging.getLogger(logger).error(
            "%s=%s %s: %s; further errors of this function are not logged for %d s%s",
            parameter,
            name,
            what,
            otherwise,
            _EVERY,
            where,
        )
