"""A Content-Security-Policy that is validated when it is built, because browsers ignore invalid parts silently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Final

from mks_hardening._core.checks import boolean, mapping
from mks_hardening.exceptions import ConfigurationError

__all__ = ["ContentSecurityPolicy"]

_SOURCE_DIRECTIVES: Final = frozenset(
    {
        "base-uri", "child-src", "connect-src", "default-src", "fenced-frame-src", "font-src", "form-action",
        "frame-ancestors", "frame-src", "img-src", "manifest-src", "media-src", "object-src", "script-src",
        "script-src-attr", "script-src-elem", "style-src", "style-src-attr", "style-src-elem", "worker-src",
    }
)  # fmt: skip
# Where browsers look for a directive that is missing (CSP 3, 6.8.3); all others allow everything then.
_FALLBACKS: Final = {
    "script-src-attr": ("script-src",),
    "script-src-elem": ("script-src",),
    "style-src-attr": ("style-src",),
    "style-src-elem": ("style-src",),
    "worker-src": ("child-src", "script-src"),
    "frame-src": ("child-src",),
}
_FLAGS: Final = frozenset({"block-all-mixed-content", "upgrade-insecure-requests"})
_TOKEN_DIRECTIVES: Final = frozenset(
    {"report-to", "report-uri", "require-trusted-types-for", "sandbox", "trusted-types", "webrtc"}
)
_KEYWORDS: Final = frozenset(
    {
        "inline-speculation-rules", "none", "report-sample", "self", "strict-dynamic", "unsafe-eval",
        "trusted-types-eval", "unsafe-hashes", "unsafe-inline", "wasm-unsafe-eval",
        "report-sha256", "report-sha384", "report-sha512",
    }
)  # fmt: skip
_QUOTED_TOKENS: Final = frozenset({"'none'", "'script'", "'allow-duplicates'"})
_WEBRTC: Final = ("'allow'", "'block'")
# A comma begins another policy, a semicolon another directive (CSP 3, 2.2).
_VALUE: Final = re.compile(r"[!-+\--:<-~]+")  # visible ASCII without comma and semicolon
_HASH: Final = re.compile(r"'sha(?:256|384|512)-[A-Za-z0-9+/_-]+={0,2}'")
_NONCE_OR_HASH: Final = re.compile(r"'?(?:nonce|sha256|sha384|sha512)-.*")
_NO_INLINE: Final = re.compile(r"'(?:(?:nonce|sha256|sha384|sha512)-.*|strict-dynamic')", re.DOTALL).match
_LOOSE: Final = re.compile(r"'unsafe-(?:inline|eval|hashes)'|\*|https?:|data:|blob:").fullmatch
_NOT_FETCHED: Final = frozenset({"base-uri", "form-action", "frame-ancestors"})

Sources = str | Iterable[str] | bool


class ContentSecurityPolicy:
    """A Content-Security-Policy: restricts the scripts, styles, frames and other resources of a page.

    Args:
        directives: sources by directive, as a sequence or as one space-separated string; keywords with their quotes
            (``"'self'"``). ``True`` sends a directive without value, ``False`` omits it.
        nonce: whether to add a new nonce to ``script-src`` (and ``script-src-elem``) for each request, available at
            ``environ["mks_hardening.csp_nonce"]``. Do not use it where pages are cached.
        report_only: whether to report violations without blocking them.

    Raises:
        ConfigurationError: ``default-src`` is missing; a directive is unknown or listed twice; a keyword lacks its
            quotes or is unknown; a value contains ``;``, ``,``, blanks or anything but visible ASCII, or is listed
            twice; ``'none'`` is combined with other sources; a nonce is given explicitly; ``'strict-dynamic'`` has
            neither a nonce nor a hash.

    Source: W3C CSP Level 3; ASVS 5.0 V3.4.3, V3.4.6, V3.4.7.
    """

    __slots__ = ("_parts", "_parts_over_http", "directives", "nonce", "report_only")

    def __init__(
        self, directives: Mapping[str, Sources], *, nonce: bool = False, report_only: bool = False
    ) -> None:
        self.nonce: bool = boolean(nonce, parameter="nonce")
        self.report_only: bool = boolean(report_only, parameter="report_only")
        self.directives: dict[str, tuple[str, ...]] = _checked(directives)
        if "default-src" not in self.directives:
            raise _csp_error("default-src is missing: everything not listed would be allowed from any source")
        # Not in style-src: frameworks write style attributes, which a nonce does not cover.
        if nonce:
            self._admit_nonce()
        # script-src falls back to default-src (CSP 3, 6.8.3).
        scripts = self.directives.get("script-src", self.directives["default-src"])
        if "'strict-dynamic'" in scripts and not any(map(_NONCE_OR_HASH.match, scripts)):
            raise _csp_error(
                "script-src has 'strict-dynamic' without a nonce or hash, so no script would run"
            )
        self._parts, self._parts_over_http = _prepared(self.directives)

    def plus(self, additions: Mapping[str, Sources]) -> ContentSecurityPolicy:
        """Return this policy with further sources.

        A directive that is missing here begins with the sources that browsers use in its place: of ``script-src``
        for ``script-src-elem``, otherwise of ``default-src``. Browsers ignore ``'unsafe-inline'`` beside a nonce, a
        hash or ``'strict-dynamic'``: where it is added, these are omitted.

        Args:
            additions: sources by directive, as in the constructor.

        Raises:
            ConfigurationError: as for the constructor, or a directive that has no sources to add.
        """
        directives = dict(self.directives)
        for key, sources in mapping(additions, parameter="csp", of="directives to sources").items():
            name = str(key).lower()
            if name not in _SOURCE_DIRECTIVES:
                raise _csp_error(f"{name} has no sources to which others can be added")
            added = _checked_values(name, _listed(name, sources))
            present = self._sources_in_place_of(name)
            if "'none'" in added:
                raise _csp_error(f"{name}: 'none' adds nothing; omit it")
            if "'unsafe-inline'" in added:
                present = tuple(source for source in present if not _NO_INLINE(source))
            directives[name] = tuple(dict.fromkeys((*present, *added)))
            if len(directives[name]) > 1:
                directives[name] = tuple(source for source in directives[name] if source != "'none'")
        return self._with(directives)

    @property
    def loose_sources(self) -> tuple[str, ...]:
        """The sources that let text inserted into a page run or style it, with their directives."""
        return tuple(
            f"{name} {source}"
            for name, sources in self.directives.items()
            if name.startswith(("default-src", "script-src", "style-src", "object-src", "base-uri"))
            for source in sources
            if _LOOSE(source.lower())
        )

    def framed_by(self, *sources: str) -> ContentSecurityPolicy:
        """Return this policy with other ``frame-ancestors``: who may show the page in a frame."""
        return self._with({**self.directives, "frame-ancestors": _checked_values("frame-ancestors", sources)})

    def _with(self, directives: dict[str, tuple[str, ...]]) -> ContentSecurityPolicy:
        policy = copy(self)
        policy.directives = directives
        policy.nonce = any(_NONCE in sources for sources in directives.values())
        policy._parts, policy._parts_over_http = _prepared(directives)  # noqa: SLF001 - of this class
        return policy

    def _sources_in_place_of(self, name: str) -> tuple[str, ...]:
        places = (name, *_FALLBACKS.get(name, ()), *(() if name in _NOT_FETCHED else ("default-src",)))
        return next((self.directives[place] for place in places if place in self.directives), ())

    def _admit_nonce(self) -> None:
        self.directives.setdefault("script-src", self.directives["default-src"])
        for name in ("script-src", "script-src-elem"):  # script elements use only the latter, if set
            if name in self.directives:
                allowed = (source for source in self.directives[name] if source != "'none'")
                self.directives[name] = (*allowed, _NONCE)

    @property
    def header_name(self) -> str:
        """Name of the header field."""
        return "Content-Security-Policy-Report-Only" if self.report_only else "Content-Security-Policy"

    def header_value(self, nonce: str = "", *, upgrade: bool = True) -> str:
        """Return the value of the header field, with the nonce of one request.

        Args:
            nonce: nonce of the request.
            upgrade: ``False`` omits ``upgrade-insecure-requests``, for hosts without HTTPS.
        """
        return nonce.join(self._parts if upgrade else self._parts_over_http)

    def __repr__(self) -> str:
        return f"ContentSecurityPolicy({self.header_value('...')!r}, report_only={self.report_only})"


_PLACE: Final = "\0"
_NONCE: Final = f"'nonce-{_PLACE}'"


def _split(directives: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Split the text of a policy at the placeholders of its nonce."""
    text = "; ".join(" ".join((name, *values)) for name, values in directives.items())
    return tuple(text.split(_PLACE))


def _prepared(directives: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts of the policy, and those over plain HTTP."""
    over_http = {name: values for name, values in directives.items() if name != "upgrade-insecure-requests"}
    return _split(directives), _split(over_http)


def _checked(directives: Mapping[str, Sources]) -> dict[str, tuple[str, ...]]:
    if not isinstance(directives, Mapping):
        raise ConfigurationError(
            f"directives must be a mapping, not {type(directives).__name__}", parameter="directives"
        )
    checked: dict[str, tuple[str, ...]] = {}
    for key, sources in directives.items():
        name = str(key).lower()
        if name in checked:
            raise _csp_error(f"{name} is given twice")
        if sources is not False:
            checked[name] = _checked_values(name, _listed(name, sources))
    return checked


def _listed(name: str, sources: Sources) -> tuple[str, ...]:
    if isinstance(sources, bool):
        return ()
    if not isinstance(sources, Iterable):
        raise _csp_error(
            f"{name} must be a string, a list of sources or a bool, not {type(sources).__name__}"
        )
    values = tuple(sources.split() if isinstance(sources, str) else sources)
    for value in values:
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise _csp_error(f"{name}: {value!r} may contain visible ASCII only, without ';', ',' and spaces")
    if len(set(values)) != len(values):
        raise _csp_error(f"{name} lists a value twice")
    return values


def _checked_values(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if name in _FLAGS:
        if values:
            raise _csp_error(f"{name} takes no value")
    elif name in _TOKEN_DIRECTIVES:
        _check_tokens(name, values)
    elif name in _SOURCE_DIRECTIVES:
        _check_sources(name, values)
    else:
        raise _csp_error(f"{name} is not a directive")
    return values


def _check_tokens(name: str, values: tuple[str, ...]) -> None:
    if not values and name not in ("sandbox", "trusted-types"):
        raise _csp_error(f"{name} needs a value")
    if name == "webrtc":
        if len(values) != 1 or values[0] not in _WEBRTC:
            raise _csp_error("webrtc must be 'allow' or 'block', in quotes")
        return
    for value in values:
        if value.startswith("'") and value not in _QUOTED_TOKENS:
            raise _csp_error(f"{name}: {value} is not a keyword")
        if f"'{value}'" in _QUOTED_TOKENS and name != "sandbox":
            raise _csp_error(f"{name}: write '{value}' with its quotes")


def _check_sources(name: str, values: tuple[str, ...]) -> None:
    if not values:
        raise _csp_error(f"{name} is empty; write 'none' in quotes to allow nothing")
    if "'none'" in values and len(values) > 1:
        raise _csp_error(f"{name}: 'none' cannot be combined with other sources")
    for value in values:
        bare = value.strip("'").lower()
        if bare.startswith("nonce-"):
            raise _csp_error(f"{name}: a nonce must be new for each request; use nonce=True")
        if "'" in value and value.lower() != f"'{bare}'":
            raise _csp_error(f"{name}: {value} is not a source")
        if value.startswith("'"):
            if bare not in _KEYWORDS and not _HASH.fullmatch(value):
                raise _csp_error(f"{name}: {value} is not a keyword")
        elif bare in _KEYWORDS or _NONCE_OR_HASH.match(bare):
            raise _csp_error(f"{name}: write '{value}' with its quotes")


def _csp_error(message: str) -> ConfigurationError:
    return ConfigurationError(f"content security policy: {message}", parameter="csp")
