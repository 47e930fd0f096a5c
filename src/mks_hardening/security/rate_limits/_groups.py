"""Parse and validate the configuration of a limiter: its groups of limits, policies and storage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from mks_hardening._core.checks import (
    boolean,
    choice,
    mapping,
    namespace_of,
    offers,
    strings,
    text_of,
    whole_number,
)
from mks_hardening._core.durations import seconds
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.rate_limits.limit import DAY, HOUR, MINUTE, Limit

__all__ = [
    "MEMORY",
    "GroupSpec",
    "LimitGroup",
    "Policy",
    "is_redis",
    "parse_groups",
    "parse_policies",
    "unknown_name_error",
]

MEMORY: Final = "memory://"

Policy = Literal["local", "open", "closed"]
GroupSpec = str | Limit | Sequence[str | Limit]

_NAMES: Final = {1.0: "second", MINUTE: "minute", HOUR: "hour", DAY: "day"}
_POLICIES: Final[tuple[Policy, ...]] = ("local", "open", "closed")


class LimitGroup(NamedTuple):
    """A group of limits with its options.

    Attributes:
        name: name of the group.
        limits: its limits, in the given order.
        smallest_quota: the maximum cost of one hit.
        policy: the policy for storage outages.
        dry_run: whether refusals are only reported.
    """

    name: str
    limits: tuple[Limit, ...]
    smallest_quota: int
    policy: Policy
    dry_run: bool

    def fitting(self, cost: int) -> int:
        """Return the cost to test with: 0 for one that never fits, as there is no time until it would fit."""
        return cost if cost <= self.smallest_quota else 0


def parse_groups(
    groups: Mapping[str, GroupSpec],
    *,
    on_unavailable: Policy | Mapping[str, Policy],
    dry_run: Collection[str],
) -> dict[str, LimitGroup]:
    """Return the groups by name.

    Raises:
        ConfigurationError: an invalid group or limit, or an option for an unknown group.
        MissingDependencyError: limits are given as text and the limits package is not installed.
    """
    mapping(groups, parameter="groups", of="names to limits")
    dry_run = strings(dry_run, parameter="dry_run", of="groups")
    limits = {name: _limits_of(name, spec) for name, spec in groups.items()}
    policies = parse_policies(limits, on_unavailable)
    for name in dry_run:
        if name not in limits:
            raise unknown_name_error(name, limits)
    return {
        name: LimitGroup(
            name,
            some,
            min(limit.quota for limit in some),
            policies[name],
            name in dry_run,
        )
        for name, some in limits.items()
    }


def parse_policies(
    names: Collection[str], on_unavailable: Policy | Mapping[str, Policy]
) -> dict[str, Policy]:
    """Return the outage policy of each name; names missing from a mapping get ``local``.

    Raises:
        ConfigurationError: an unknown policy, or a policy for an unknown name.
    """
    given = (
        dict.fromkeys(names, on_unavailable)
        if isinstance(on_unavailable, str)
        else mapping(on_unavailable, parameter="on_unavailable", of="names to policies, or one policy")
    )
    for name in given:
        if name not in names:
            raise unknown_name_error(name, names)
    return {name: choice(given.get(name, "local"), _POLICIES, parameter="on_unavailable") for name in names}


def is_redis(
    storage: object, processes: int, namespace: str, store_budget: float, *, allow_plaintext: bool
) -> bool:
    """Return whether the storage is Redis, after a check of all arguments.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range.
    """
    # Checked for memory too, which uses none of them: an error must show up in development, not only in
    # production.
    namespace_of(namespace)
    whole_number(processes, parameter="processes", minimum=1, maximum=100_000)
    seconds(store_budget, parameter="store_budget", allow_zero=False)
    boolean(allow_plaintext, parameter="allow_plaintext")
    if not isinstance(storage, str) and not hasattr(
        storage, "acall"
    ):  # our own client has no execute_command
        offers(
            storage, "execute_command", parameter="storage", kind="memory://, a Redis URL or a Redis client"
        )
    return storage != MEMORY


def unknown_name_error(
    group: object, known: Iterable[str], *, parameter: str = "group"
) -> ConfigurationError:
    """Return the error for a name (of a group or of another kind) that was not configured."""
    return ConfigurationError(
        f"{parameter} {group!r} is unknown; there are {', '.join(sorted(known))}", parameter=parameter
    )


def _limits_of(group: str, spec: GroupSpec) -> tuple[Limit, ...]:
    text_of(group, parameter="groups")
    parts: object = [spec] if isinstance(spec, (str, Limit)) else spec
    if not isinstance(parts, Sequence) or not all(isinstance(part, (str, Limit)) for part in parts):
        raise ConfigurationError(
            f"groups[{group!r}] must be a Limit, a string like '5 per minute', or a list of them",
            parameter="groups",
        )
    found: list[Limit] = []
    for part in parts:
        found += (
            _parsed(part)
            if isinstance(part, str)
            else [_validated_limit(part.quota, part.window, name=part.name)]
        )
    if not found or not group:
        raise ConfigurationError("each group must have a name and at least one limit", parameter="groups")
    if len({limit.name for limit in found}) != len(found):
        raise ConfigurationError(f"group {group!r} has two limits with the same name", parameter="groups")
    return tuple(found)


def _parsed(text: str) -> list[Limit]:
    """Parse limits in the notation of the limits package: ``5 per minute; 20/hour, 100 per 2 days``."""
    with optional("limits", extra="security"):
        from limits import parse_many
    try:
        items = parse_many(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a limit; write for example '5 per minute; 20 per hour'", parameter="groups"
        ) from None
    return [_validated_limit(item.amount, float(item.get_expiry())) for item in items]


def _validated_limit(quota: int, window: float, *, name: str = "") -> Limit:
    """Return a validated limit, named after its window when no name is given.

    Raises:
        ConfigurationError: quota or window out of range, or a name that a header field cannot hold.
    """
    whole_number(quota, parameter="quota", minimum=1, maximum=1_000_000)
    length = seconds(window, parameter="window", allow_zero=False)
    if not 0.001 <= length <= 366 * DAY:
        raise ConfigurationError("window must be from 0.001 seconds to 366 days", parameter="window")
    chosen = name or _NAMES.get(length) or f"{length:g}s"
    # The name becomes a part of Lua text and of header fields (RateLimit-Policy).
    if not (chosen.isascii() and chosen.isprintable()) or set(chosen) & set('"\\'):
        raise ConfigurationError(
            "name must be printable ASCII without quotes and backslashes", parameter="name"
        )
    return Limit(chosen, quota, length)
