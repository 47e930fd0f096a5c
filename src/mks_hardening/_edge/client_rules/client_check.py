"""Whether a request of a client is refused, and which responses count as offences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from mks_hardening._core.checks import boolean, function, instance
from mks_hardening._core.function_errors import call_predicate
from mks_hardening._core.web.paths import exemptions
from mks_hardening._edge.client_rules.ban_list import BanList
from mks_hardening._edge.client_rules.client_rules import ClientRules
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError

__all__ = ["ClientCheck"]

_DENIED: Final = RefusalResponse(
    "denied", 403, "Requests from this network are not accepted.", setting="MKS_DENY_NETWORKS"
)
_BANNED: Final = RefusalResponse(
    "banned",
    403,
    "Requests from this address are refused for a while, because of earlier requests.",
    setting="MKS_ALLOW_NETWORKS",
)


class ClientCheck:
    """The validated options of ``ClientRulesMiddleware``, with the same arguments."""

    __slots__ = ("_bans", "_dry_run", "_exempt", "_pass_paths", "_rules")

    def __init__(
        self,
        *,
        rules: ClientRules | None,
        bans: BanList | None,
        pass_paths: Iterable[str],
        exempt: Callable[[dict[str, Any]], bool] | None,
        dry_run: bool,
    ) -> None:
        if rules is None and bans is None:
            raise ConfigurationError("rules or bans must be given", parameter="rules")
        self._rules = None if rules is None else instance(rules, ClientRules, parameter="rules")
        self._bans = None if bans is None else instance(bans, BanList, parameter="bans")
        self._pass_paths = exemptions(pass_paths, parameter="pass_paths")
        self._exempt = None if exempt is None else function(exempt, parameter="exempt")
        self._dry_run = boolean(dry_run, parameter="dry_run")

    def refusal(self, request: dict[str, Any], path: str, client_ip: str) -> RefusalResponse | None:
        """Return the refusal of a request; ``None`` if it is served."""
        verdict = "" if self._rules is None else self._rules.verdict(client_ip)
        found = _DENIED if verdict == "deny" else None
        if not verdict and self._bans is not None and self._bans.is_banned(client_ip):
            found = _BANNED
        # Looked at last, since few clients are blocked.
        if found is None or self._dry_run or self._pass_paths.match(path):
            return None
        is_exempt = (
            found is _BANNED
            and self._exempt is not None
            and call_predicate(
                self._exempt,
                request,
                parameter="exempt",
                otherwise="the client stays banned",
                logger="mks_hardening.client_rules",
            )
        )
        return None if is_exempt else found

    def observer(self, path: str, client_ip: str) -> Callable[[int], None] | None:
        """Return the function that takes the status of the response; ``None`` if it does not matter."""
        bans = self._bans
        if bans is None or not bans.judges_responses or self._pass_paths.match(path):
            return None
        if self._rules is not None and self._rules.verdict(client_ip) == "allow":
            return None
        return lambda status: bans.observe_response(client_ip, path, status)
