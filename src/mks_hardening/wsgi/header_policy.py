"""Which header fields tell browsers what a page may not do: one policy, three presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi.csp import ContentSecurityPolicy

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    class PolicyOptions(TypedDict, total=False):
        """What every preset lets be overridden."""

        hsts: HSTS | None
        csp: ContentSecurityPolicy | None
        content_type_options: str | None
        frame_options: str | None
        referrer_policy: str | None
        permissions_policy: str | None
        cross_origin_opener_policy: str | None
        cross_origin_resource_policy: str | None
        cross_origin_embedder_policy: str | None
        origin_agent_cluster: str | None
        permitted_cross_domain_policies: str | None
        dns_prefetch_control: str | None
        cache_control: str | None
        reporting_endpoints: Mapping[str, str] | None
        extra: Mapping[str, str]
        remove: Iterable[str]


__all__ = ["HSTS", "HeaderPolicy", "check_kind"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_REPORT_NAME: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
_REPORT_URL: Final = re.compile(r"(?:https://|/(?!/))[!#-\[\]-~]*")
_PRELOAD_MINIMUM: Final = 31536000  # hstspreload.org
_NO_FEATURES: Final = (
    "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(), encrypted-media=(), "
    "fullscreen=(), geolocation=(), gyroscope=(), keyboard-map=(), magnetometer=(), microphone=(), midi=(), "
    "payment=(), picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), sync-xhr=(self), "
    "usb=(), web-share=(), xr-spatial-tracking=(), clipboard-read=(), clipboard-write=(), gamepad=(), hid=(), "
    "idle-detection=(), interest-cohort=(), serial=(), unload=()"
)


class HSTS:
    """Strict-Transport-Security: browsers use HTTPS for this host, and do not offer to ignore a bad certificate.

    Args:
        max_age: how long, in seconds or as a ``timedelta``; two years by default. 0 switches it off in browsers
            that have remembered it.
        include_subdomains: the same for every host below.
        preload: consent to the list that browsers ship; hard to take back.

    Raises:
        ConfigurationError: a negative duration, or ``preload`` without sub-domains or for less than a year.

    Source: RFC 6797; hstspreload.org; ASVS 5.0 V3.4.1, V3.7.4.
    """

    __slots__ = ("value",)

    def __init__(
        self, max_age: float | timedelta = 63072000, *, include_subdomains: bool = True, preload: bool = False
    ) -> None:
        age = int(seconds(max_age, parameter="max_age"))
        if preload and (not include_subdomains or age < _PRELOAD_MINIMUM):
            raise ConfigurationError(
                f"preload needs include_subdomains and a max_age of at least {_PRELOAD_MINIMUM} seconds",
                parameter="preload",
            )
        self.value: str = f"max-age={age}"
        if age:
            self.value += "; includeSubDomains" * include_subdomains + "; preload" * preload

    def __repr__(self) -> str:
        return f"HSTS({self.value!r})"


class HeaderPolicy:
    """Which fields are added to every answer, unless the application has set them, and which are taken away.

    ``None`` leaves a field out. The presets follow the OWASP Secure Headers list: ``web`` for pages, ``api`` for
    machines, ``strict`` for pages that load nothing from elsewhere; each takes the arguments below as overrides.
    ``X-XSS-Protection`` is never added: browsers have dropped the filter, and it opened holes of its own.

    Args:
        hsts: Strict-Transport-Security, sent over HTTPS only.
        csp: Content-Security-Policy.
        content_type_options: X-Content-Type-Options.
        frame_options: X-Frame-Options, for browsers that do not know ``frame-ancestors``.
        referrer_policy: Referrer-Policy.
        permissions_policy: Permissions-Policy.
        cross_origin_opener_policy: Cross-Origin-Opener-Policy.
        cross_origin_resource_policy: Cross-Origin-Resource-Policy.
        cross_origin_embedder_policy: Cross-Origin-Embedder-Policy.
        origin_agent_cluster: Origin-Agent-Cluster.
        permitted_cross_domain_policies: X-Permitted-Cross-Domain-Policies.
        dns_prefetch_control: X-DNS-Prefetch-Control.
        cache_control: Cache-Control.
        reporting_endpoints: URLs (https, or a path of this host) by name, which ``report-to`` may use.
        extra: further fields.
        remove: fields of the application that are dropped. What the server adds is out of reach.

    Raises:
        ConfigurationError: a name or value that cannot stand in a header, a ``report-to`` nobody listens at.

    Source: OWASP Secure Headers Project; ASVS 5.0 V3.4, V13.4.6.
    """

    __slots__ = ("csp", "fields", "hsts", "remove")

    def __init__(
        self,
        *,
        hsts: HSTS | None = None,
        csp: ContentSecurityPolicy | None = None,
        content_type_options: str | None = "nosniff",
        frame_options: str | None = "DENY",
        referrer_policy: str | None = "strict-origin-when-cross-origin",
        permissions_policy: str | None = None,
        cross_origin_opener_policy: str | None = None,
        cross_origin_resource_policy: str | None = None,
        cross_origin_embedder_policy: str | None = None,
        origin_agent_cluster: str | None = None,
        permitted_cross_domain_policies: str | None = None,
        dns_prefetch_control: str | None = None,
        cache_control: str | None = None,
        reporting_endpoints: Mapping[str, str] | None = None,
        extra: Mapping[str, str] = {},
        remove: Iterable[str] = ("Server", "X-Powered-By"),
    ) -> None:
        if hsts is not None:
            check_kind(hsts, HSTS, "hsts")
        if csp is not None:
            check_kind(csp, ContentSecurityPolicy, "csp")
        self.hsts: HSTS | None = hsts
        self.csp: ContentSecurityPolicy | None = csp
        endpoints = _endpoints(reporting_endpoints or {}, csp)
        fields = {
            "X-Content-Type-Options": content_type_options,
            "X-Frame-Options": frame_options,
            "Referrer-Policy": referrer_policy,
            "Permissions-Policy": permissions_policy,
            "Cross-Origin-Opener-Policy": cross_origin_opener_policy,
            "Cross-Origin-Resource-Policy": cross_origin_resource_policy,
            "Cross-Origin-Embedder-Policy": cross_origin_embedder_policy,
            "Origin-Agent-Cluster": origin_agent_cluster,
            "X-Permitted-Cross-Domain-Policies": permitted_cross_domain_policies,
            "X-DNS-Prefetch-Control": dns_prefetch_control,
            "Cache-Control": cache_control,
            "Reporting-Endpoints": endpoints,
            **extra,
        }
        self.fields: tuple[tuple[str, str], ...] = tuple(
            (name, _checked(name, value)) for name, value in fields.items() if value is not None
        )
        self.remove: frozenset[str] = _names(remove)

    @classmethod
    def web(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """For pages: own origin only, no frames, no powerful features."""
        options: PolicyOptions = {
            **_COMMON,
            "csp": _web_csp(),
            "cross_origin_embedder_policy": "credentialless",
            **overrides,
        }
        return cls(**options)

    @classmethod
    def api(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """For answers that no browser should show or keep."""
        options: PolicyOptions = {
            **_COMMON,
            "csp": ContentSecurityPolicy({**_NOWHERE, "default-src": "'none'"}),
            "referrer_policy": "no-referrer",
            "cache_control": "no-store, max-age=0",
            **overrides,
        }
        return cls(**options)

    @classmethod
    def strict(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """For pages whose scripts carry the nonce of the request, and that are not kept by caches."""
        options: PolicyOptions = {
            **_COMMON,
            "csp": _strict_csp(),
            "referrer_policy": "no-referrer",
            "cache_control": "no-store, max-age=0",
            **overrides,
        }
        return cls(**options)

    def __repr__(self) -> str:
        return f"HeaderPolicy(hsts={self.hsts!r}, csp={self.csp!r}, fields={self.fields!r})"


_COMMON: Final[PolicyOptions] = {
    "hsts": HSTS(),
    "permissions_policy": _NO_FEATURES,
    "cross_origin_opener_policy": "same-origin",
    "cross_origin_resource_policy": "same-origin",
    "cross_origin_embedder_policy": "require-corp",
    "origin_agent_cluster": "?1",
    "permitted_cross_domain_policies": "none",
    "dns_prefetch_control": "off",
}
_NOWHERE: Final = {
    "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'", "object-src": "'none'"
}  # fmt: skip


def _web_csp() -> ContentSecurityPolicy:
    return ContentSecurityPolicy(
        {
            "default-src": "'self'",
            **_NOWHERE,
            "form-action": "'self'",
            "img-src": "'self' data:",
            "upgrade-insecure-requests": True,
        }
    )


def _strict_csp() -> ContentSecurityPolicy:
    return ContentSecurityPolicy(
        {
            "default-src": "'none'",
            **_NOWHERE,
            "form-action": "'self'",
            "script-src": "'strict-dynamic'",
            **dict.fromkeys(("connect-src", "font-src", "img-src", "manifest-src", "style-src"), "'self'"),
            "require-trusted-types-for": "'script'",
            "upgrade-insecure-requests": True,
        },
        nonce=True,
    )


def check_kind(value: object, kind: type, parameter: str) -> None:
    """Refuse what is not of the kind that a parameter takes."""
    if not isinstance(value, kind):
        raise ConfigurationError(
            f"{parameter} must be a {kind.__name__}, not {type(value).__name__}", parameter=parameter
        )


def _checked(name: str, value: object) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a header field", parameter="extra")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ConfigurationError(
            f"{name} must be visible ASCII text without line breaks, not {type(value).__name__}",
            parameter=name.lower().replace("-", "_"),
        )
    return value


def _names(names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise ConfigurationError("remove must be a list of names, not one str", parameter="remove")
    listed = tuple(names)
    if not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in listed):
        raise ConfigurationError("remove must hold names of header fields", parameter="remove")
    return frozenset(name.lower() for name in listed)


def _endpoints(endpoints: Mapping[str, str], csp: ContentSecurityPolicy | None) -> str | None:
    for name, url in endpoints.items():
        if not _REPORT_NAME.fullmatch(name) or not _REPORT_URL.fullmatch(url):
            raise ConfigurationError(
                "reporting_endpoints must map lower-case names to https URLs or paths of this host",
                parameter="reporting_endpoints",
            )
    for name in csp.directives.get("report-to", ()) if csp else ():
        if name not in endpoints:
            raise ConfigurationError(
                f"report-to names {name!r}, which reporting_endpoints does not have", parameter="csp"
            )
    return ", ".join(f'{name}="{url}"' for name, url in endpoints.items()) or None
