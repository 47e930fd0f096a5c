"""Signature checks of task functions at registration, at enqueuing and before execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Signature, signature

from mks_hardening.exceptions import ConfigurationError

__all__ = ["mismatch", "signature_of"]


def signature_of(name: str, work: Callable[..., object], *, scheduled: bool) -> Signature:
    """Return the signature of a task function.

    Raises:
        ConfigurationError: the function could never be run as a task.
    """
    try:
        found = signature(work)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{name}: the parameters of this callable cannot be read", parameter="work"
        ) from None
    parameter, problem = "work", "the first parameter of a task must take its TaskRun"
    try:
        found.bind_partial(None)
        if scheduled:
            parameter = "schedule"
            problem = "a task with a schedule runs without arguments; give its parameters defaults"
            found.bind(None)
    except TypeError:
        raise ConfigurationError(f"{name}: {problem}", parameter=parameter) from None
    return found


def mismatch(known: Signature, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Return why a function does not accept these arguments; empty if it does.

    Checked when a task is enqueued, and before it runs: another release of the code may have enqueued it.
    """
    try:
        known.bind(None, *args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""
