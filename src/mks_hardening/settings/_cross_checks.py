"""Checks for invalid combinations of settings, and for settings that are unsafe in production."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening._core.environment.parsers import duration_text
from mks_hardening._core.loopback import is_loopback
from mks_hardening._core.origin.network_addresses import parse_network
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.settings.hardening import HardeningSettings

__all__ = ["cross_check_errors"]


def cross_check_errors(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    """Yield one sentence per error, with the variables and the remedy."""
    yield from _sessions(settings, prefix)
    yield from _hosts(settings, prefix)
    if settings.wsgi.max_body_paths and settings.wsgi.max_body is None:
        yield f"{prefix}MAX_BODY_PATHS requires {prefix}MAX_BODY, the limit of all other paths"
    yield from _mail(settings, prefix)
    yield from _clear_text(settings, prefix)
    if (settings.cache.cdn_zone_id is None) != (settings.cache.cdn_api_token is None):
        yield "CLOUDFLARE_ZONE_ID and CLOUDFLARE_API_TOKEN must be set together"
    if settings.logging.max_bytes is not None and settings.logging.file is None:
        yield f"{prefix}LOG_MAX_BYTES requires {prefix}LOG_FILE: set the file, or unset the size"
    if settings.core.environment == "production":
        yield from _unsafe_in_production(settings, prefix)


def _sessions(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    edge = settings.wsgi
    idle, absolute = edge.session_idle_timeout, edge.session_absolute_timeout
    # Almost always a missing unit: 30 meant minutes for one variable and hours for the other.
    if idle > absolute:
        yield (
            f"{prefix}SESSION_IDLE_TIMEOUT ({duration_text(idle)}) must not be longer than "
            f"{prefix}SESSION_ABSOLUTE_TIMEOUT ({duration_text(absolute)}); write units, such as 30m and 8h"
        )
    # The default is not checked: shortening the idle timeout alone says nothing about the warning.
    warn = edge.session_warn_before
    if warn > idle and warn != type(edge)().session_warn_before:
        yield (
            f"{prefix}SESSION_WARN_BEFORE ({duration_text(warn)}) must not be longer than "
            f"{prefix}SESSION_IDLE_TIMEOUT ({duration_text(idle)})"
        )


def _hosts(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    edge = settings.wsgi
    if (
        edge.canonical_host is not None
        and edge.allowed_hosts
        and not _lists(edge.allowed_hosts, edge.canonical_host)
    ):
        yield f"{prefix}CANONICAL_HOST must be one of {prefix}ALLOWED_HOSTS"


def _lists(hosts: tuple[str, ...], wanted: str) -> bool:
    name = wanted.lower().removesuffix(".")
    return any(
        # ".example.com" also covers the apex, as in the middleware that checks hosts.
        name == host.lower().removeprefix(".") or (host.startswith(".") and name.endswith(host.lower()))
        for host in hosts
    )


def _mail(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    notify = settings.notify
    if notify.smtp_host is not None and not notify.alert_to:
        yield f"{prefix}ALERT_TO must contain a recipient when {prefix}SMTP_HOST is set"
    if notify.smtp_host is not None and notify.alert_from is None:
        yield f"{prefix}ALERT_FROM must contain a sender when {prefix}SMTP_HOST is set"
    if notify.alert_to and notify.smtp_host is None:
        yield f"{prefix}SMTP_HOST must be a mail server when {prefix}ALERT_TO is set"
    if (notify.smtp_user is None) != (notify.smtp_password is None):
        yield f"{prefix}SMTP_USER and {prefix}SMTP_PASSWORD must be set together"


def _clear_text(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    """Yield an error for each remote server with an unencrypted connection that was not explicitly allowed."""
    allowed = settings.core.allow_plaintext
    servers = {
        f"{prefix}REDIS_URL": settings.core.redis_url,
        f"{prefix}CACHE_URL": settings.cache.url,
        f"{prefix}RATE_LIMIT_URL": settings.security.rate_limit_url,
    }
    for name, url in servers.items():
        try:
            if url is not None:
                parse_redis_url(url, allow_plaintext=allowed)
        except ConfigurationError:
            yield f"{name} must begin with rediss:// or rediss+…:// (or set {prefix}ALLOW_PLAINTEXT=1): clear text"
    notify = settings.notify
    if notify.slack_webhook_url is not None:
        from mks_hardening._core.backend.http_session import (
            check_url,  # brings sockets, which others do not need
        )

        try:
            check_url(
                notify.slack_webhook_url, parameter=f"{prefix}SLACK_WEBHOOK_URL", allow_plaintext=allowed
            )
        except ConfigurationError as error:
            yield str(error)
    if (
        notify.smtp_host is not None
        and notify.smtp_security == "plain"
        and not allowed
        and not is_loopback(notify.smtp_host)
    ):
        yield f"{prefix}SMTP_SECURITY=plain requires {prefix}SMTP_HOST on this machine or {prefix}ALLOW_PLAINTEXT=1"


def _unsafe_in_production(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    # Errors rather than warnings: nobody reads the warnings of a deployment that works.
    if not settings.wsgi.force_https:
        yield (
            f"{prefix}FORCE_HTTPS=0 is refused in production; unset it, "
            f"or set {prefix}ENV to staging, development or test"
        )
    for network in settings.wsgi.trusted_proxies:
        if _is_wider_than_private_networks(network):
            yield (
                f"{prefix}TRUSTED_PROXIES={network} is refused in production: any client could choose its own "
                f"address and scheme; name the networks of your proxies, or set {prefix}PROXY_HOPS instead"
            )
    if settings.logging.level == "DEBUG":
        yield (
            f"{prefix}LOG_LEVEL=DEBUG is refused in production; set INFO, "
            f"or {prefix}ENV to staging, development or test"
        )


def _is_wider_than_private_networks(text: str) -> bool:
    """Whether it is wider than 10.0.0.0/8 (RFC 1918) or fc00::/7 (RFC 4193), the largest private networks."""
    if text == "unix":
        return False
    network = parse_network(text, parameter="TRUSTED_PROXIES")
    return network.prefixlen < (8 if network.version == 4 else 7)
