"""Policy for the security header fields of responses, with three presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instance, mapping, strings
from mks_hardening._edge.headers.csp import ContentSecurityPolicy, Sources
from mks_hardening._edge.headers.csp_presets import api_csp, legacy_csp, strict_csp, web_csp
from mks_hardening._edge.headers.hsts import HSTS
from mks_hardening._edge.headers.value_checks import FIELDS, check_value
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    class PolicyOptions(TypedDict, total=False):
        """Options that every preset accepts as overrides."""

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


__all__ = ["HeaderPolicy"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, 5.5 without obs-text; a line break would allow header injection.
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_REPORT_NAME: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
# "//host" looks like a path of this host, but browsers read it as another host.
_REPORT_URL: Final = re.compile(r"(?:https://|/(?!/))[!#-\[\]-~]*")
_EMBEDDER: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
# OWASP Secure Headers of July 2026: features that a page does not need. Passkeys stay allowed for the site itself:
# with an empty list no browser offers passkey sign-in. ``unload`` stays allowed: browsers would
# report an error for each page that listens to that event, as those of the Django admin do.
_NO_FEATURES: Final = (
    "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(), encrypted-media=(), "
    "fullscreen=(), geolocation=(), gyroscope=(), keyboard-map=(), magnetometer=(), microphone=(), midi=(), "
    "payment=(), picture-in-picture=(), publickey-credentials-get=(self), screen-wake-lock=(), sync-xhr=(self), "
    "usb=(), xr-spatial-tracking=(), clipboard-read=(), clipboard-write=(), gamepad=(), hid=(), "
    "idle-detection=(), interest-cohort=(), serial=()"
)
# A browser grants these only at a click, and buttons that copy a text or enlarge a video are on ordinary pages.
_AT_A_CLICK: Final = re.compile(r"\b(clipboard-write|fullscreen|picture-in-picture)=\(\)")
_WEB_FEATURES: Final = _AT_A_CLICK.sub(r"\1=(self)", _NO_FEATURES)


class HeaderPolicy:
    """Header fields to add to every response, unless the application has set them, and fields to remove.

    ``None`` omits a field. The presets follow the OWASP Secure Headers list: ``web`` for pages, ``api`` for APIs,
    ``strict`` for pages that load nothing from other origins. Each accepts the arguments below as overrides.
    ``X-XSS-Protection`` is never added: browsers have removed the filter, and it introduced vulnerabilities itself.

    Args:
        hsts: Strict-Transport-Security, sent over HTTPS only.
        csp: Content-Security-Policy.
        content_type_options: X-Content-Type-Options.
        frame_options: X-Frame-Options, for browsers that do not support ``frame-ancestors``.
        referrer_policy: Referrer-Policy.
        permissions_policy: Permissions-Policy.
        cross_origin_opener_policy: Cross-Origin-Opener-Policy.
        cross_origin_resource_policy: Cross-Origin-Resource-Policy.
        cross_origin_embedder_policy: Cross-Origin-Embedder-Policy.
        origin_agent_cluster: Origin-Agent-Cluster.
        permitted_cross_domain_policies: X-Permitted-Cross-Domain-Policies.
        dns_prefetch_control: X-DNS-Prefetch-Control.
        cache_control: Cache-Control.
        reporting_endpoints: URLs by name (https, or a path of this host) for use in ``report-to``.
        extra: additional fields, other than those that have a parameter above.
        remove: fields of the application to remove. Fields added by the server cannot be removed.

    Raises:
        ConfigurationError: a name or value is not allowed in a header or is unknown to browsers, or ``report-to``
            refers to an undefined endpoint.

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
            instance(hsts, HSTS, parameter="hsts")
        if csp is not None:
            instance(csp, ContentSecurityPolicy, parameter="csp")
        self.hsts: HSTS | None = hsts
        self.csp: ContentSecurityPolicy | None = csp
        endpoints = _endpoints({} if reporting_endpoints is None else reporting_endpoints, csp)
        given = {
            "content_type_options": content_type_options,
            "frame_options": frame_options,
            "referrer_policy": referrer_policy,
            "permissions_policy": permissions_policy,
            "cross_origin_opener_policy": cross_origin_opener_policy,
            "cross_origin_resource_policy": cross_origin_resource_policy,
            "cross_origin_embedder_policy": cross_origin_embedder_policy,
            "origin_agent_cluster": origin_agent_cluster,
            "permitted_cross_domain_policies": permitted_cross_domain_policies,
            "dns_prefetch_control": dns_prefetch_control,
            "cache_control": cache_control,
            "reporting_endpoints": endpoints,
        }
        self.fields: tuple[tuple[str, str], ...] = (
            *(
                (FIELDS[parameter], _checked(parameter, value))
                for parameter, value in given.items()
                if value is not None
            ),
            *_further(extra, csp),
        )
        self.remove: frozenset[str] = _names(remove)

    @classmethod
    def web(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """Return the preset for pages: resources of their own origin only, no framing, no powerful features.

        Copying to the clipboard and full screen stay allowed: browsers grant them only at a click.
        """
        options: PolicyOptions = {
            **_COMMON,
            "csp": web_csp(),
            "permissions_policy": _WEB_FEATURES,
            # require-corp would block every image of another host that does not send the CORP header.
            "cross_origin_embedder_policy": "credentialless",
            **overrides,
        }
        return cls(**options)

    @classmethod
    def api(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """Return the preset for responses that browsers should neither render nor cache."""
        options: PolicyOptions = {
            **_COMMON,
            "csp": api_csp(),
            "referrer_policy": "no-referrer",
            "cache_control": "no-store, max-age=0",
            **overrides,
        }
        return cls(**options)

    @classmethod
    def legacy(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """Return the preset ``web`` with inline scripts and styles, which most older applications contain.

        An attacker who can insert text into a page can insert a script that runs. Prefer ``web`` with additions for
        the paths that need them; ``SecurityHeadersMiddleware`` logs what this preset allows.
        """
        options: PolicyOptions = {"csp": legacy_csp(), **overrides}
        return cls.web(**options)

    @classmethod
    def strict(cls, **overrides: Unpack[PolicyOptions]) -> HeaderPolicy:
        """Return the preset for pages whose scripts carry the nonce of the request, and that are not cached."""
        options: PolicyOptions = {
            **_COMMON,
            "csp": strict_csp(),
            "referrer_policy": "no-referrer",
            "cache_control": "no-store, max-age=0",
            **overrides,
        }
        return cls(**options)

    def plus(
        self,
        *,
        csp: Mapping[str, Sources] | None = None,
        frame: str | Iterable[str] | None = None,
        corp: str | None = None,
        coop: str | None = None,
        coep: str | None = None,
        permissions: str | None = None,
    ) -> HeaderPolicy:
        """Return this policy with additions: ``HeaderPolicy.web().plus(csp={"img-src": "https://tiles.example.com"})``.

        ``None`` keeps what this policy says.

        Args:
            csp: sources to add, by directive; see ``ContentSecurityPolicy.plus``.
            frame: who may show the pages in a frame: ``"deny"`` for nobody, ``"same-origin"``, or origins.
            corp: who may load the responses into pages (Cross-Origin-Resource-Policy): ``"same-origin"``,
                ``"same-site"`` or ``"cross-origin"``.
            coop: Cross-Origin-Opener-Policy, for example ``"same-origin-allow-popups"``.
            coep: Cross-Origin-Embedder-Policy; ``"unsafe-none"`` for pages with frames of other origins that send
                no such field.
            permissions: features of Permissions-Policy that replace those of the same name, such as
                ``geolocation=(self)``.

        Raises:
            ConfigurationError: a value is unknown to browsers, a directive has no sources to add, or ``csp`` is
                given for a policy without one.
        """
        if csp is not None and self.csp is None:
            raise ConfigurationError(
                "csp adds sources to a content security policy, and this policy has none", parameter="csp"
            )
        changed: dict[str, str | None] = {
            FIELDS[parameter]: _checked(parameter, value, given_as=short)
            for short, parameter, value in (
                ("corp", "cross_origin_resource_policy", corp),
                ("coop", "cross_origin_opener_policy", coop),
                ("coep", "cross_origin_embedder_policy", coep),
            )
            if value is not None
        }
        policy = self.csp if csp is None or self.csp is None else self.csp.plus(csp)
        if frame is not None:
            ancestors = _frame_ancestors(frame)
            changed["X-Frame-Options"] = _FRAME_OPTIONS.get(ancestors)
            policy = policy and policy.framed_by(*ancestors)
        fields = {**dict(self.fields), **changed}
        if permissions is not None:
            added = _checked("permissions_policy", permissions, given_as="permissions")
            fields["Permissions-Policy"] = _with_features(fields.get("Permissions-Policy") or "", added)
        result = copy(self)
        result.csp = policy
        result.fields = tuple((name, value) for name, value in fields.items() if value is not None)
        return result

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


_FRAME_OPTIONS: Final[Mapping[tuple[str, ...], str]] = {("'none'",): "DENY", ("'self'",): "SAMEORIGIN"}
"""X-Frame-Options by ``frame-ancestors``; it cannot name another origin."""


def _with_features(present: str, added: str) -> str:
    features = [part.strip() for part in f"{present},{added}".split(",") if part.strip()]
    return ", ".join({feature.partition("=")[0]: feature for feature in features}.values())


def _frame_ancestors(frame: str | Iterable[str]) -> tuple[str, ...]:
    words = {"deny": ("'none'",), "same-origin": ("'self'",)}
    if isinstance(frame, str) and frame in words:
        return words[frame]
    origins = (frame,) if isinstance(frame, str) else strings(frame, parameter="frame", of="origins")
    if not origins or not all(map(_EMBEDDER.fullmatch, origins)):
        raise ConfigurationError(
            "frame must be 'deny', 'same-origin', or origins such as https://portal.example.com",
            parameter="frame",
        )
    return tuple(origins)


def _checked(parameter: str, value: object, *, given_as: str = "") -> str:
    text = _visible(FIELDS[parameter], value, given_as or parameter)
    check_value(parameter, text, given_as=given_as or parameter)
    return text


def _visible(name: str, value: object, parameter: str) -> str:
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ConfigurationError(
            f"{name} must be visible ASCII text without line breaks, not {type(value).__name__}",
            parameter=parameter,
        )
    return value


def _further(extra: Mapping[str, str], csp: ContentSecurityPolicy | None) -> Iterable[tuple[str, str]]:
    """Yield the fields of ``extra``; none of them may duplicate a field that has a parameter."""
    homes = {field.lower(): parameter for parameter, field in FIELDS.items()}
    homes |= {"strict-transport-security": "hsts", "content-security-policy": "csp"}
    if csp is not None:
        homes[csp.header_name.lower()] = "csp"
    seen: set[str] = set()
    for name, value in mapping(extra, parameter="extra", of="names to values").items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot be the name of a header field", parameter="extra")
        if name.lower() in homes:
            raise ConfigurationError(
                f"extra: {name} has a parameter of its own, {homes[name.lower()]}", parameter="extra"
            )
        if name.lower() in seen:
            raise ConfigurationError(f"extra contains {name} twice", parameter="extra")
        seen.add(name.lower())
        yield name, _visible(name, value, "extra")


def _names(names: Iterable[str]) -> frozenset[str]:
    listed = strings(names, parameter="remove", of="names")
    if not all(map(_TOKEN.fullmatch, listed)):
        raise ConfigurationError("remove must contain names of header fields", parameter="remove")
    return frozenset(name.lower() for name in listed)


def _endpoints(endpoints: Mapping[str, str], csp: ContentSecurityPolicy | None) -> str | None:
    for name, url in mapping(endpoints, parameter="reporting_endpoints", of="names to URLs").items():
        if not (
            isinstance(name, str)
            and isinstance(url, str)
            and _REPORT_NAME.fullmatch(name)
            and _REPORT_URL.fullmatch(url)
        ):
            raise ConfigurationError(
                "reporting_endpoints must map lower-case names to https URLs or paths of this host",
                parameter="reporting_endpoints",
            )
    for name in csp.directives.get("report-to", ()) if csp else ():
        if name not in endpoints:
            raise ConfigurationError(
                f"report-to names {name!r}, which is not in reporting_endpoints", parameter="csp"
            )
    return ", ".join(f'{name}="{url}"' for name, url in endpoints.items()) or None
