"""Header fields of certain paths, as additions to the policy of all others."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core.checks import instances, strings
from mks_hardening._core.web.paths import PathRules, paths_of_rule
from mks_hardening._edge.headers.header_policy import HeaderPolicy
from mks_hardening._edge.headers.merger import HeaderMerger, HeaderMergers
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._edge.headers.csp import Sources

__all__ = ["HeaderRule", "HeaderRules", "headers_of_file", "log_loose_sources"]

_logger = logging.getLogger("mks_hardening.wsgi")


class HeaderRule:
    """Additions to the header policy for certain paths.

    Args:
        path: path or paths: ``/admin`` is that page, ``/admin/`` everything below it. In another spelling a path
            gets the policy of all paths.
        csp: sources to add, by directive.
        frame: who may show the pages in a frame: ``"deny"``, ``"same-origin"``, or origins.
        corp: Cross-Origin-Resource-Policy.
        coop: Cross-Origin-Opener-Policy.
        coep: Cross-Origin-Embedder-Policy.
        permissions: features of Permissions-Policy, such as ``geolocation=(self)``.

    Raises:
        ConfigurationError: no path, or a value that ``HeaderPolicy.plus`` refuses.
    """

    __slots__ = ("_additions", "listed", "paths")

    def __init__(
        self,
        path: str | Iterable[str],
        *,
        csp: Mapping[str, Sources] | None = None,
        frame: str | Iterable[str] | None = None,
        corp: str | None = None,
        coop: str | None = None,
        coep: str | None = None,
        permissions: str | None = None,
    ) -> None:
        listed = (path,) if isinstance(path, str) else strings(path, parameter="path", of="paths")
        self.listed: tuple[str, ...] = tuple(listed)
        self.paths: PathRules = paths_of_rule(self.listed)
        self._additions = {
            "csp": csp,
            "frame": frame,
            "corp": corp,
            "coop": coop,
            "coep": coep,
            "permissions": permissions,
        }
        self.applied_to(HeaderPolicy.web())  # checks the values

    def applied_to(self, policy: HeaderPolicy) -> HeaderPolicy:
        """Return the policy with the additions of this rule.

        Raises:
            ConfigurationError: the policy has no content security policy to which sources can be added.
        """
        return policy.plus(**self._additions)  # type: ignore[arg-type]  # the parameters of this constructor


def headers_of_file(path: str, policy: HeaderPolicy) -> tuple[HeaderPolicy, list[HeaderRule]]:
    """Return the policy and the rules that a TOML file adds.

    Keys are the parameters of ``HeaderPolicy.plus``; those of a table named by a path hold for that path::

        csp.img-src = ["https://tiles.example.com"]

        ["/admin/"]
        frame = "same-origin"
        csp.script-src-elem = ["'unsafe-inline'"]

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has an unknown key or value.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # also bytes that are not UTF-8
        raise ConfigurationError(
            f"MKS_HEADERS_FILE cannot be read: {type(error).__name__}: {error}", parameter="MKS_HEADERS_FILE"
        ) from error
    everywhere = {key: value for key, value in content.items() if not key.startswith(("/", "=/"))}
    tables = {key: value for key, value in content.items() if key not in everywhere}
    changed = policy.plus(**_additions("the file", everywhere))
    rules: list[HeaderRule] = []
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"MKS_HEADERS_FILE: {key} must be a table of header values", parameter="MKS_HEADERS_FILE"
            )
        rules.append(HeaderRule(key, **_additions(key, cast("dict[str, Any]", table))))
    return changed, rules


def _additions(place: str, table: dict[str, Any]) -> dict[str, Any]:
    unknown = table.keys() - _KEYS
    if unknown:
        raise ConfigurationError(
            f"MKS_HEADERS_FILE: {place} has {', '.join(sorted(unknown))}; known are {', '.join(_KEYS)}, and paths",
            parameter="MKS_HEADERS_FILE",
        )
    return table


_KEYS: Final = ("csp", "frame", "corp", "coop", "coep", "permissions")


def log_loose_sources(policy: HeaderPolicy, rules: Iterable[HeaderRule]) -> None:
    """Log what the settings let inserted text do, once for all paths and once for each rule."""
    everywhere = () if policy.csp is None else policy.csp.loose_sources
    if everywhere:
        _logger.warning("the header policy allows %s on every page", ", ".join(everywhere))
    for rule in rules:
        changed = rule.applied_to(policy).csp
        further = [] if changed is None else [one for one in changed.loose_sources if one not in everywhere]
        if further:
            _logger.warning("the header policy allows %s on %s", ", ".join(further), ", ".join(rule.listed))


class HeaderRules:
    """The mergers of a policy, and of the rules for certain paths."""

    __slots__ = ("_everywhere", "_rules", "has_nonce")

    def __init__(self, policy: HeaderPolicy, rules: Iterable[HeaderRule]) -> None:
        applied = [
            (rule.paths, rule.applied_to(policy)) for rule in instances(rules, HeaderRule, parameter="rules")
        ]
        self.has_nonce: bool = any(
            one.csp is not None and one.csp.nonce for one in (policy, *(changed for _, changed in applied))
        )
        self._everywhere = HeaderMergers(policy)
        self._rules = [(paths, HeaderMergers(changed)) for paths, changed in applied]

    def merger(self, scheme: str, host: str, path: str) -> HeaderMerger:
        """Return the merger for a request: that of the first rule with its path, otherwise of all paths."""
        for paths, mergers in self._rules:
            if paths.match(path):
                return mergers.merger(scheme, host)
        return self._everywhere.merger(scheme, host)
