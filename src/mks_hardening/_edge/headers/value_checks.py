"""Checks of header values: browsers ignore misspelt values, so they are rejected at configuration time."""

from __future__ import annotations

import difflib
import re
from typing import Final

from mks_hardening.exceptions import ConfigurationError

__all__ = ["FIELDS", "check_value"]

FIELDS: Final = {
    "content_type_options": "X-Content-Type-Options",
    "frame_options": "X-Frame-Options",
    "referrer_policy": "Referrer-Policy",
    "permissions_policy": "Permissions-Policy",
    "cross_origin_opener_policy": "Cross-Origin-Opener-Policy",
    "cross_origin_resource_policy": "Cross-Origin-Resource-Policy",
    "cross_origin_embedder_policy": "Cross-Origin-Embedder-Policy",
    "origin_agent_cluster": "Origin-Agent-Cluster",
    "permitted_cross_domain_policies": "X-Permitted-Cross-Domain-Policies",
    "dns_prefetch_control": "X-DNS-Prefetch-Control",
    "cache_control": "Cache-Control",
    "reporting_endpoints": "Reporting-Endpoints",
}
"""Header field of each parameter, in the order in which they are sent."""

_WORDS: Final = {
    "content_type_options": ("nosniff",),
    "frame_options": ("DENY", "SAMEORIGIN"),
    "referrer_policy": (
        *("no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin"),
        *("origin-when-cross-origin", "strict-origin-when-cross-origin", "unsafe-url"),
    ),
    "cross_origin_opener_policy": (
        *("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"),
    ),
    "cross_origin_resource_policy": ("same-origin", "same-site", "cross-origin"),
    "cross_origin_embedder_policy": ("require-corp", "credentialless", "unsafe-none"),
    "origin_agent_cluster": ("?1", "?0"),
    "permitted_cross_domain_policies": (
        *("none", "none-this-response", "master-only", "by-content-type", "by-ftp-filename", "all"),
    ),
    "dns_prefetch_control": ("on", "off"),
}
_LISTS: Final = frozenset({"referrer_policy"})  # browsers use the last value that they know
_REPORTING: Final = frozenset({"cross_origin_opener_policy", "cross_origin_embedder_policy"})
_REPORT_TO: Final = re.compile(r'; *report-to="[!#-\[\]-~]+"\Z')

# W3C Permissions Policy, features.md of July 2026, and features that browsers have dropped since.
_FEATURES: Final = frozenset(
    {
        "accelerometer", "all-screens-capture", "ambient-light-sensor", "aria-notify", "attribution-reporting",
        "autofill", "autoplay", "battery", "bluetooth", "browsing-topics", "camera", "captured-surface-control",
        "ch-ua", "clipboard-read", "clipboard-write", "compute-pressure", "conversion-measurement",
        "cross-origin-isolated", "deferred-fetch", "deferred-fetch-minimal", "digital-credentials-create",
        "digital-credentials-get", "direct-sockets", "direct-sockets-private", "display-capture",
        "document-domain", "encrypted-media", "execution-while-not-rendered",
        "execution-while-out-of-viewport", "focus-without-user-activation", "fullscreen", "gamepad",
        "geolocation", "gyroscope", "hid", "identity-credentials-get", "idle-detection", "interest-cohort",
        "join-ad-interest-group", "keyboard-map", "language-detector", "language-model",
        "local-network-access", "local-fonts", "loopback-network", "local-network", "magnetometer",
        "manual-text", "media-playback-while-not-visible", "mediasession", "microphone", "midi",
        "monetization", "navigation-override", "on-device-speech-recognition", "otp-credentials", "payment",
        "picture-in-picture", "private-aggregation", "private-state-token-issuance",
        "private-state-token-redemption", "proofreader", "publickey-credentials-create",
        "publickey-credentials-get", "record-ad-auction-events", "rewriter", "run-ad-auction",
        "screen-wake-lock", "serial", "shared-storage", "shared-storage-select-url", "smart-card",
        "speaker-selection", "storage-access", "summarizer", "sub-apps", "sync-script", "sync-xhr",
        "translator", "trust-token-redemption", "unload", "usb", "usb-unrestricted", "vertical-scroll",
        "wake-lock", "web-app-installation", "web-printing", "web-share", "window-management",
        "window-placement", "writer", "xr-spatial-tracking",
    }
)  # fmt: skip
_FEATURE: Final = re.compile(r"([a-z][a-z0-9_.*-]*)=(\*|\(([^()]*)\)|self|src)")
_ALLOWED: Final = re.compile(r'\*|self|src|"https?://[^"\s]+"|"wss?://[^"\s]+"')


def check_value(parameter: str, value: str, *, given_as: str) -> None:
    """Reject a value that browsers would ignore.

    Args:
        parameter: parameter of ``HeaderPolicy``.
        value: its value.
        given_as: name of the parameter for the error message.

    Raises:
        ConfigurationError: the value is not allowed for the field, or is not a permissions policy.
    """
    if parameter == "permissions_policy":
        for part in value.split(","):
            _check_feature(part.strip(" \t"), given_as)
        return
    words = _WORDS.get(parameter)
    if words is None:
        return
    text = _REPORT_TO.sub("", value) if parameter in _REPORTING else value
    given = [word.strip(" \t") for word in text.split(",")] if parameter in _LISTS else [text]
    known = {word.lower() for word in words}
    if not all(word.lower() in known for word in given):
        raise ConfigurationError(f"{given_as} must be one of {', '.join(words)}", parameter=given_as)


def _check_feature(part: str, given_as: str) -> None:
    found = _FEATURE.fullmatch(part)
    if found is None or not all(map(_ALLOWED.fullmatch, (found[3] or "").split())):
        raise ConfigurationError(
            f'{given_as} must list features such as camera=(), fullscreen=(self "https://example.com")',
            parameter=given_as,
        )
    name = found[1]
    # Browsers add features faster than this list: a name that resembles none of them may be new.
    close = [] if name in _FEATURES else difflib.get_close_matches(name, sorted(_FEATURES), n=1, cutoff=0.75)
    if close and not name.startswith("ch-"):
        raise ConfigurationError(
            f"{given_as}: no browser knows {name}; did you mean {close[0]}?",
            parameter=given_as,
        )
