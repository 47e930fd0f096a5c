"""Signature checks of task functions at registration, at enqueuing and before execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Signature, signature

from mks_hardening.exceptions import ConfigurationError, TaskRefusedError

__all__ = ["accepts", "check_call", "signature_of"]


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
    for wanted, bind, parameter in (
        ("the first parameter of a task must take its TaskRun", found.bind_partial, "work"),
        (
            "a task with a schedule runs without arguments; give its parameters defaults",
            found.bind,
            "schedule",
        ),
    ):
        try:
            if parameter == "work" or scheduled:
                bind(None)
        except TypeError:
            raise ConfigurationError(f"{name}: {wanted}", parameter=parameter) from None
    return found


def check_call(name: str, known: Signature, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    """Reject arguments that the function does not accept, when a task is enqueued.

    Raises:
        TaskRefusedError: the arguments do not match the signature.
    """
    try:
        known.bind(None, *args, **kwargs)
    except TypeError as error:
        raise TaskRefusedError(f"{name}: {error}") from None


def accepts(known: Signature, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether the function accepts arguments that another release of the code enqueued."""
    try:
        known.bind(None, *args, **kwargs)
    except TypeError:
        return False
    return True
