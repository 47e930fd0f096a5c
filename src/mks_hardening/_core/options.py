"""Distribute the options of one call among several middleware classes, and explain unknown options."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from mks_hardening.exceptions import ConfigurationError

__all__ = ["distribute_options"]


def distribute_options(
    options: Mapping[str, Any], takers: Mapping[str, type], *, usual: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return the options of each class.

    An option has the name of the class's parameter, with the prefix of the class if several classes have it:
    ``clock``, ``record_clock``.

    Args:
        options: options by name.
        takers: classes by prefix.
        usual: prefix of the class that gets an option without a prefix although several have it.

    Raises:
        ConfigurationError: no class, or more than one, has the option.
    """
    known = {taker: _parameters(kind) for taker, kind in takers.items()}
    shares: dict[str, dict[str, Any]] = {taker: {} for taker in takers}
    for name, value in options.items():
        taker, option = _taker(name, known, usual) or _raise_unknown_option(name, known, takers)
        shares[taker][option] = value
    return shares


def _taker(
    name: str, known: Mapping[str, frozenset[str]], usual: Mapping[str, str]
) -> tuple[str, str] | None:
    for taker, names in known.items():
        option = name.removeprefix(f"{taker}_")
        if option != name and option in names:
            return taker, option
    having = [taker for taker, names in known.items() if name in names]
    if len(having) > 1 and name not in usual:
        written = " or ".join(f"{taker}_{name}" for taker in having)
        raise ConfigurationError(f"{name} is an option of several wrappers: write {written}", parameter=name)
    return (usual.get(name, having[0]), name) if having else None


def _raise_unknown_option(
    name: str, known: Mapping[str, frozenset[str]], takers: Mapping[str, type]
) -> tuple[str, str]:
    homes = {option: taker for taker, names in known.items() for option in sorted(names)}
    homes |= {f"{taker}_{option}": taker for taker, names in known.items() for option in sorted(names)}
    close = difflib.get_close_matches(name, homes, n=1)
    hint = f"; did you mean {close[0]}, of {takers[homes[close[0]]].__name__}?" if close else ""
    raise ConfigurationError(f"no wrapper takes {name}{hint}", parameter=name)


def _parameters(kind: type) -> frozenset[str]:
    parameters = inspect.signature(kind).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
