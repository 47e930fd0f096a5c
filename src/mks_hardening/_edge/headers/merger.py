"""Merges the header fields of a policy into those of a response; caches the result per list of field names."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.hostname import parse_host
from mks_hardening._core.origin.network_addresses import parse_address

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.headers.header_policy import HeaderPolicy

__all__ = ["HeaderMerger", "HeaderMergers"]

Header = tuple[str, str]
RawHeader = tuple[bytes, bytes]

_name = itemgetter(0)


def _is_remote_name(host: str) -> bool:
    """Return whether a ``Host`` field is a name of another host: neither an address nor this machine."""
    found = parse_host(host)
    if found is None or found.name.startswith("[") or parse_address(found.name) is not None:
        return False
    return found.name != "localhost" and not found.name.endswith(".localhost")


class _MergePlan(NamedTuple):
    """Changes to a response that has certain field names."""

    added: tuple[Header, ...]
    dropped: frozenset[str]
    adds_csp: bool
    """Whether to add the policy that depends on the response: on its nonce, or its own X-Frame-Options."""


class _RawMergePlan(NamedTuple):
    """A plan for header fields in bytes, with lower-case names."""

    added: tuple[RawHeader, ...]
    dropped: frozenset[bytes]
    adds_csp: bool


class HeaderMerger:
    """Merger of prebuilt header fields into responses; the changes for a list of field names are computed once.

    Args:
        policy: the header policy.
        secure: whether the request came over HTTPS.
        named: whether the requested host is a name other than localhost, and not an address.
    """

    __slots__ = ("_csp", "_fields", "_framed", "_plans", "_raw_plans", "_remove", "_upgrade")

    def __init__(self, policy: HeaderPolicy, *, secure: bool, named: bool) -> None:
        hsts = policy.hsts if secure and named else None
        self._csp = csp = policy.csp
        # What the application says about frames for one response holds there: browsers ignore X-Frame-Options
        # beside frame-ancestors (CSP 3, 6.4.2).
        self._framed = (
            {"DENY": csp.framed_by("'none'"), "SAMEORIGIN": csp.framed_by("'self'")}
            if csp is not None and "frame-ancestors" in csp.directives
            else {}
        )
        fixed_csp = csp if csp is not None and not csp.nonce else None
        self._upgrade = secure or named  # localhost and bare addresses have no HTTPS to upgrade to
        # Built once, so that a request only adds finished tuples.
        self._fields = (
            *([("Strict-Transport-Security", hsts.value)] if hsts else ()),
            *([(fixed_csp.header_name, fixed_csp.header_value(upgrade=self._upgrade))] if fixed_csp else ()),
            *policy.fields,
        )
        self._remove = policy.remove
        self._plans: Memo[tuple[str, ...], _MergePlan] = Memo(self._plan, entries=1024, longest=4096)
        self._raw_plans: Memo[tuple[bytes, ...], _RawMergePlan] = Memo(
            self._raw_plan, entries=1024, longest=4096
        )

    def _plan(self, names: tuple[str, ...]) -> _MergePlan:
        present = {name.lower() for name in names}
        adds_csp = (
            self._csp is not None
            and self._csp.header_name.lower() not in present
            and (self._csp.nonce or ("x-frame-options" in present and bool(self._framed)))
        )
        if adds_csp and self._csp is not None:
            present.add(self._csp.header_name.lower())
        return _MergePlan(
            added=tuple(field for field in self._fields if field[0].lower() not in present),
            # As spelt by the application, so that a request compares without lower().
            dropped=frozenset(name for name in names if name.lower() in self._remove),
            adds_csp=adds_csp,
        )

    def step(self, status: str, headers: Headers, nonce: str = "") -> str:
        """Change status and header fields of one response; returns the status."""
        added, dropped, adds_csp = self._plans[tuple(map(_name, headers))]
        if dropped:
            headers[:] = [field for field in headers if field[0] not in dropped]
        headers += added
        if adds_csp:
            own = next((value for name, value in headers if name.lower() == "x-frame-options"), "")
            headers += self._csp_fields(own, nonce, is_304=status[:3] == "304")
        return status

    def _csp_fields(self, frame_options: str, nonce: str, *, is_304: bool) -> list[Header]:
        csp = self._framed.get(frame_options.strip().upper(), self._csp)
        # A 304 updates the headers of the page in the browser's cache, whose scripts carry a different nonce.
        if csp is None or (csp.nonce and is_304):
            return []
        return [(csp.header_name, csp.header_value(nonce, upgrade=self._upgrade))]

    def _raw_plan(self, names: tuple[bytes, ...]) -> _RawMergePlan:
        plan = self._plan(tuple(name.decode("latin-1") for name in names))
        return _RawMergePlan(
            added=tuple(_raw(name, value) for name, value in plan.added),
            dropped=frozenset(name.encode("latin-1") for name in plan.dropped),
            adds_csp=plan.adds_csp,
        )

    def step_raw(self, status: int, headers: list[RawHeader], nonce: str = "") -> None:
        """``step`` for the header fields of an ASGI message, in place."""
        added, dropped, adds_csp = self._raw_plans[tuple(map(_name, headers))]
        if dropped:
            headers[:] = [field for field in headers if field[0] not in dropped]
        headers += added
        if adds_csp:
            own = next((value for name, value in headers if name.lower() == b"x-frame-options"), b"")
            fields = self._csp_fields(own.decode("latin-1"), nonce, is_304=status == 304)
            headers += [_raw(name, value) for name, value in fields]


def _raw(name: str, value: str) -> RawHeader:
    return name.lower().encode("latin-1"), value.encode("latin-1")


class HeaderMergers:
    """The mergers of one policy: which one a response gets depends on the scheme and host of its request."""

    __slots__ = ("_plain", "_secure")

    def __init__(self, policy: HeaderPolicy) -> None:
        mergers = {
            (secure, named): HeaderMerger(policy, secure=secure, named=named)
            for secure in (True, False)
            for named in (True, False)
        }
        self._secure: Memo[str, HeaderMerger] = Memo(lambda host: mergers[True, _is_remote_name(host)])
        self._plain: Memo[str, HeaderMerger] = Memo(lambda host: mergers[False, _is_remote_name(host)])

    def merger(self, scheme: str, host: str) -> HeaderMerger:
        """Return the merger for a request with this scheme and this ``Host`` field."""
        return (self._secure if scheme == "https" else self._plain)[host]
