"""Policies for cross-origin requests, after the Fetch standard, on plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import boolean, instance, instances, strings, whole_number
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.web_origin import parse_origin
from mks_hardening._core.web.paths import PathRules, paths_of_rule, values_of_path
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CORSPolicy", "CORSRule", "CORSRules", "is_preflight"]

Header = tuple[str, str]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}").fullmatch
_LONGEST_HEADER_LIST: Final = 4096
_FORBIDDEN_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})  # Fetch, 2.2.1
_ESCAPES_AND_SETS: Final = re.compile(r"\\.|\[\^?\]?[^\]]*\]")
_GROUPS: Final = re.compile(r"\([^()]*\)")
# The end of a pattern: a host name in full, after the scheme or an escaped dot, and the port.
_LITERAL_HOST: Final = re.compile(
    r"(?://(?:[a-z0-9-]+\\\.)*|\\\.(?:\)[?*+]?)?(?:[a-z0-9-]+\\\.)+|\\\.(?:\)[?*+]?)?(?=localhost))[a-z0-9-]+"
    r"(?::[0-9]+|:\\d\+|\((?:\?:)?:(?:\\d|\[0-9\])\+\)\?)?(?:\$|\\Z)?"
)
# A repeated group takes exponential time, unless an escaped dot separates its repetitions.
_REPEATED_REPETITION: Final = re.compile(r"\((?:[^()\\]|\\.)*[*+{](?:[^()\\]|\\.)*\)[*+{]")
_SEPARATED: Final = re.compile(r"\((?:\?:)?\[[^\]]*\]\+\\\.\)[*+]")


class CORSPolicy:
    r"""Which pages of other origins may read the responses, and with which requests.

    The decision is the browser's: the policy only tells it. It does not protect against requests from other
    programs, and WebSockets are not covered by CORS; ``CSRFMiddleware`` checks their ``Origin``.

    Args:
        origins: allowed origins such as ``https://www.example.com``, without a path, or ``"*"`` for responses that
            everybody may read. ``null`` cannot be allowed: every sandboxed page has that origin.
        patterns: regular expressions that match whole origins, for example
            ``r"https://[a-z0-9-]+\.example\.com"``. They are compared with the whole origin in lower case, must
            begin with the scheme, and may not contain an unescaped dot, which would match foreign hosts.
        methods: allowed methods, as sent (``PATCH`` is not ``patch``), or ``"*"`` for all; not with
            ``credentials``. Browsers always allow GET, HEAD and POST.
        headers: allowed request header fields beyond the safe ones, or ``"*"`` for all.
        expose: response header fields that scripts may read beyond the safe ones, or ``"*"`` for all; not with
            ``credentials``.
        credentials: whether cookies and other credentials may be sent; not with ``"*"`` as origin.
        max_age: seconds for which browsers may cache a preflight response; they cap it, Chromium at 7200.
        private_network: whether pages of the public internet may reach this server in a private network.

    Raises:
        ConfigurationError: an origin is malformed, has a path, or is ``null``; a pattern could match foreign
            hosts; ``"*"`` with ``credentials``, or beside other values; a method or field name is not a token.

    Source: Fetch standard, 3.3 (CORS protocol); ASVS 5.0 V3.4.2; CWE-942.
    """

    __slots__ = ("_any", "_expose", "_fields", "_granted", "_headers", "_methods", "_patterns", "credentials",
                 "max_age", "origins", "private_network")  # fmt: skip

    def __init__(
        self,
        origins: Iterable[str] | str,
        *,
        patterns: Iterable[str] = (),
        methods: Iterable[str] = ("GET", "HEAD", "POST"),
        headers: Iterable[str] | str = (),
        expose: Iterable[str] = (),
        credentials: bool = False,
        max_age: int = 600,
        private_network: bool = False,
    ) -> None:
        listed = (
            (origins,) if isinstance(origins, str) else strings(origins, parameter="origins", of="origins")
        )
        self._any = "*" in listed
        self.credentials: bool = boolean(credentials, parameter="credentials")
        if self._any and self.credentials:
            raise ConfigurationError(
                "'*' cannot be combined with credentials: every site could read the pages of the signed-in user; "
                "list the origins",
                parameter="origins",
            )
        self._patterns = tuple(
            _pattern(text) for text in strings(patterns, parameter="patterns", of="patterns")
        )
        if self._any and (len(listed) > 1 or self._patterns):
            raise ConfigurationError("'*' already allows every other origin", parameter="origins")
        self.origins: frozenset[str] = frozenset(_listed_origin(text) for text in listed if text != "*")
        if not (self._any or self.origins or self._patterns):
            raise ConfigurationError("origins must contain at least one origin", parameter="origins")
        self._methods = _methods(methods, credentials=credentials)
        fields = _names(headers, "headers")
        # With the requested names, since browsers do not take "*" for Authorization, nor beside credentials.
        self._headers = None if fields == "*" else fields
        self._expose = _names(expose, "expose", credentials=credentials)
        self.max_age: int = whole_number(max_age, parameter="max_age", minimum=0, maximum=86400)
        self.private_network: bool = boolean(private_network, parameter="private_network")
        self._fields = self._response_fields()
        self._granted: Memo[str, bool] = Memo(self._grants, entries=1024)

    def grants(self, origin: str | None) -> bool:
        """Return whether pages of this origin may read responses."""
        return self._any or (origin is not None and self._granted[origin])

    def response_fields(self, origin: str | None) -> list[Header]:
        """Return the header fields of a response, without ``Vary``."""
        if self._any:
            return [("Access-Control-Allow-Origin", "*"), *self._fields]
        if origin is None or not self._granted[origin]:
            return []
        return [("Access-Control-Allow-Origin", origin), *self._fields]

    def preflight_fields(
        self, origin: str | None, requested_headers: str | None, *, private_network: bool
    ) -> list[Header] | None:
        """Return the header fields of a response to a preflight, without ``Vary``; ``None`` for other origins.

        Args:
            origin: field ``Origin``.
            requested_headers: field ``Access-Control-Request-Headers``.
            private_network: whether ``Access-Control-Request-Private-Network: true`` was sent.
        """
        fields = self.response_fields(origin)
        if not fields:
            return None
        fields = [field for field in fields if field[0] != "Access-Control-Expose-Headers"]
        fields.append(("Access-Control-Allow-Methods", self._methods))
        allowed = _requested(requested_headers) if self._headers is None else self._headers
        if allowed:
            fields.append(("Access-Control-Allow-Headers", allowed))
        if private_network and self.private_network:
            fields.append(("Access-Control-Allow-Private-Network", "true"))
        fields.append(("Access-Control-Max-Age", str(self.max_age)))
        return fields

    def vary(self, *, preflight: bool) -> tuple[str, ...]:
        """Return the request header fields on which the response depends."""
        origin = () if self._any else ("Origin",)
        if not preflight:
            return origin
        return (*origin, *(("Access-Control-Request-Headers",) if self._headers is None else ()))

    def _response_fields(self) -> tuple[Header, ...]:
        fields: list[Header] = []
        if self.credentials:
            fields.append(("Access-Control-Allow-Credentials", "true"))
        if self._expose:
            fields.append(("Access-Control-Expose-Headers", self._expose))
        return tuple(fields)

    def _grants(self, origin: str) -> bool:
        canonical = _canonical(origin)
        if canonical is None:
            return False
        return canonical in self.origins or any(pattern.fullmatch(canonical) for pattern in self._patterns)

    def __repr__(self) -> str:
        return f"CORSPolicy({'*' if self._any else sorted(self.origins)!r})"


class CORSRule:
    """A policy for some paths; the first rule of ``CORSMiddleware`` whose paths match decides.

    Args:
        path: one path or several; a trailing slash includes everything below. In another spelling of the path,
            such as ``/x/../api``, no other origin is allowed.
        policy: the policy.

    Raises:
        ConfigurationError: there is no path, or one does not begin with a slash; or ``policy`` is not a
            ``CORSPolicy``.
    """

    __slots__ = ("paths", "policy")

    def __init__(self, path: str | Iterable[str], policy: CORSPolicy) -> None:
        self.paths: PathRules = paths_of_rule(path)
        self.policy: CORSPolicy = instance(policy, CORSPolicy, parameter="policy")

    def covers(self, path: str) -> bool:
        """Return whether the policy applies to the path, or to another spelling of it."""
        return self.paths.covers(path)


class CORSRules:
    """The rules of ``CORSMiddleware``, in order."""

    __slots__ = ("_everywhere", "_rules")

    def __init__(self, policy: CORSPolicy | None, rules: Iterable[CORSRule]) -> None:
        self._rules = [(rule.paths, rule.policy) for rule in instances(rules, CORSRule, parameter="rules")]
        self._everywhere = None if policy is None else instance(policy, CORSPolicy, parameter="policy")
        if self._everywhere is None and not self._rules:
            raise ConfigurationError("give either a policy or rules for paths", parameter="policy")

    def policy(self, path: str) -> CORSPolicy | None:
        """Return the policy for a path: that of the first rule that matches, else the one for all paths.

        If a rule with another policy lists another spelling of the path, no origin is allowed.
        """
        first, *others = values_of_path(path, self._rules, self._everywhere)
        return first if all(other is first for other in others) else _NOBODY


def is_preflight(method: str, origin: str | None, requested_method: str | None) -> bool:
    """Return whether a browser asks whether a request of another origin is allowed (Fetch, 4.8)."""
    return method == "OPTIONS" and origin is not None and requested_method is not None


def _listed_origin(text: str) -> str:
    canonical = _canonical(text)
    if canonical is None:
        raise ConfigurationError(
            f"origins: {text!r} is not an origin; write scheme and host, such as https://www.example.com, without "
            "a path or a trailing slash",
            parameter="origins",
        )
    return canonical


def _canonical(text: str) -> str | None:
    origin = parse_origin(text)
    # A final dot makes another origin for browsers.
    dotted = text.removesuffix(f":{origin.port}").endswith(".") if origin else True
    return None if origin is None or dotted else str(origin)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigurationError(
            f"patterns: {text!r} is not a valid regular expression: {error}", parameter="patterns"
        ) from None
    plain = text.removeprefix("^").removeprefix(r"\A")
    if not plain.startswith(("https://", "http://", "https?://")) or "." in _ESCAPES_AND_SETS.sub("", text):
        raise ConfigurationError(
            f"patterns: {text!r} must begin with the scheme and escape each dot, such as "
            r"https://[a-z0-9-]+\.example\.com; a dot matches any character, also in host names of other owners",
            parameter="patterns",
        )
    if not _ends_with_a_host(text):
        raise ConfigurationError(
            f"patterns: {text!r} must end with a host name in full, after the scheme or an escaped dot, such as "
            r"https://[a-z0-9-]+\.example\.com: else it matches host names of other owners",
            parameter="patterns",
        )
    if _REPEATED_REPETITION.search(_SEPARATED.sub("", text)):
        raise ConfigurationError(
            f"patterns: {text!r} repeats a group that contains a repetition, which takes exponential time",
            parameter="patterns",
        )
    return pattern


def _ends_with_a_host(text: str) -> bool:
    """Return whether every origin that matches ends with the same host name, and perhaps a port."""
    ends = [found for found in _LITERAL_HOST.finditer(text) if found.end() == len(text)]
    outside = text
    while (reduced := _GROUPS.sub("", outside)) != outside:
        outside = reduced
    return bool(ends) and "|" not in _ESCAPES_AND_SETS.sub("", outside)


def _methods(methods: Iterable[str], *, credentials: bool) -> str:
    listed = _names(methods, "methods", credentials=credentials)
    forbidden = _FORBIDDEN_METHODS.intersection(listed.upper().split(", "))
    if forbidden:
        raise ConfigurationError(f"methods: browsers never send {min(forbidden)}", parameter="methods")
    return listed


def _names(names: Iterable[str], parameter: str, *, credentials: bool = False) -> str:
    """Return a list of methods or field names as the value of a field; ``*`` stands for all."""
    listed = ("*",) if names == "*" else strings(names, parameter=parameter, of="names")
    for name in listed:
        if not _TOKEN(name):
            raise ConfigurationError(
                f"{parameter}: {name!r} is not a token (RFC 9110, 5.6.2)", parameter=parameter
            )
    if "*" in listed and credentials:
        raise ConfigurationError(
            f"{parameter}: list the names, since browsers take '*' literally if credentials are sent",
            parameter=parameter,
        )
    if "*" in listed and len(listed) > 1:
        raise ConfigurationError(f"{parameter}: '*' already includes every other name", parameter=parameter)
    return ", ".join(listed)


def _requested(text: str | None) -> str:
    """Return the requested field names that are well formed, each by name: ``*`` does not cover Authorization."""
    names = (name.strip(" \t") for name in (text or "")[:_LONGEST_HEADER_LIST].split(","))
    return ", ".join(dict.fromkeys(name.lower() for name in names if _TOKEN(name)))


_NOBODY: Final = CORSPolicy("https://nobody.invalid")
"""Allows no origin that exists (RFC 2606), for paths to which two policies may apply."""
