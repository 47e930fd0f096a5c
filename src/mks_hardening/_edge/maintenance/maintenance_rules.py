"""Which requests pass during maintenance, and the response to the others."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import ceil
from typing import Final

from mks_hardening._core.checks import instance, strings, text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.network_addresses import parse_address
from mks_hardening._core.web.paths import exemptions
from mks_hardening._edge.maintenance.maintenance_switch import MaintenanceSwitch
from mks_hardening._edge.refusal_response import FixedResponse, RefusalResponse
from mks_hardening.exceptions import ConfigurationError

__all__ = ["MaintenanceRules"]

_DETAIL: Final = "This service is under maintenance. Please try again later."


class MaintenanceRules:
    """The validated options of ``MaintenanceMiddleware``, with the same arguments.

    Attributes:
        refusal: the response during maintenance.
        page: the page that browsers get instead, or ``None``.
        switch: the switch.
    """

    __slots__ = ("_networks", "_pass_paths", "_passes", "page", "refusal", "switch")

    def __init__(
        self,
        *,
        switch: MaintenanceSwitch,
        pass_paths: Iterable[str],
        pass_networks: Iterable[str],
        retry_after: float | timedelta,
        page: str | None,
    ) -> None:
        self.switch: MaintenanceSwitch = instance(switch, MaintenanceSwitch, parameter="switch")
        self._pass_paths = exemptions(pass_paths, parameter="pass_paths")
        self._networks = _networks(pass_networks)
        self._passes: Memo[str, bool] = Memo(self._is_operator)
        wait = ("Retry-After", str(max(1, ceil(seconds(retry_after, parameter="retry_after")))))
        self.refusal: RefusalResponse = RefusalResponse(
            "maintenance", 503, _DETAIL, [wait], setting="MKS_MAINTENANCE_FILE"
        )
        self.page: FixedResponse | None = None
        if page is not None:
            fields = [("Cache-Control", "no-store"), ("Vary", "Accept"), wait]
            body = _page(page)
            self.page = FixedResponse(503, body, "text/html; charset=utf-8", fields)

    def refuses(self, path: str, client_ip: str) -> bool:
        """Return whether a request is refused now."""
        return self.switch.is_on() and not self._pass_paths.match(path) and not self._passes[client_ip]

    def _is_operator(self, client_ip: str) -> bool:
        address = parse_address(client_ip)
        return address is not None and any(address in network for network in self._networks)


def _page(page: str) -> bytes:
    try:
        return text_of(page, parameter="page", empty=False).encode()
    except UnicodeEncodeError:
        raise ConfigurationError("page must be text that can be written as UTF-8", parameter="page") from None


def _networks(listed: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    networks: list[IPv4Network | IPv6Network] = []
    for text in strings(listed, parameter="pass_networks", of="networks"):
        try:
            networks.append(ip_network(text))
        except ValueError:
            raise ConfigurationError(
                f"pass_networks: {text!r} is not an address or network such as 192.0.2.0/24",
                parameter="pass_networks",
            ) from None
    return tuple(networks)
