"""Adds header fields that tell browsers what a page may not do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.memo import Memo
from mks_hardening.wsgi.header_policy import HeaderPolicy, check_kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.wsgi_iter import ExcInfo, Headers

__all__ = ["SecurityHeadersMiddleware"]

NONCE_KEY: Final = "mks_hardening.csp_nonce"


class SecurityHeadersMiddleware:
    """Adds the fields of a policy to every answer; what the application has set is kept.

    Args:
        app: the WSGI application.
        policy: ``HeaderPolicy.web()``, ``.api()``, ``.strict()`` or one of your own.
    """

    __slots__ = ("_app", "_nonce", "_plain", "_secure")

    def __init__(self, app: WSGIApplication, *, policy: HeaderPolicy) -> None:
        check_kind(policy, HeaderPolicy, "policy")
        self._app = app
        self._nonce = policy.csp is not None and policy.csp.nonce
        self._plain = _Merger(policy, secure=False)
        self._secure = _Merger(policy, secure=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        merger = self._secure if environ["wsgi.url_scheme"] == "https" else self._plain
        nonce = ""
        if self._nonce:
            nonce = environ[NONCE_KEY] = os.urandom(16).hex()

        def start(
            status: str, headers: Headers, exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            return start_response(status, merger.merge(headers, nonce), exc_info)

        return self._app(environ, start)


Header = tuple[str, str]


class _Plan(NamedTuple):
    """What to do with an answer that has certain field names."""

    added: tuple[Header, ...]
    dropped: frozenset[str]
    adds_csp: bool


class _Merger:
    """Adds prebuilt fields; what a list of names leads to is worked out once."""

    __slots__ = ("_csp", "_fields", "_plans", "_remove")

    def __init__(self, policy: HeaderPolicy, *, secure: bool) -> None:
        hsts = policy.hsts if secure else None
        fixed_csp = policy.csp if policy.csp is not None and not policy.csp.nonce else None
        self._csp = policy.csp if policy.csp is not None and policy.csp.nonce else None
        self._fields = (
            *([("Strict-Transport-Security", hsts.value)] if hsts else ()),
            *([(fixed_csp.header_name, fixed_csp.header_value())] if fixed_csp else ()),
            *policy.fields,
        )
        self._remove = policy.remove
        self._plans: Memo[tuple[str, ...], _Plan] = Memo(self._plan, entries=1024, longest=4096)

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        present = {name.lower() for name in names}
        return _Plan(
            added=tuple(field for field in self._fields if field[0].lower() not in present),
            dropped=frozenset(name for name in names if name.lower() in self._remove),
            adds_csp=self._csp is not None and self._csp.header_name.lower() not in present,
        )

    def merge(self, headers: Headers, nonce: str) -> Headers:
        added, dropped, adds_csp = self._plans[tuple([name for name, _ in headers])]
        kept = [field for field in headers if field[0] not in dropped] if dropped else headers
        merged = [*kept, *added]
        if adds_csp and self._csp is not None:
            merged.append((self._csp.header_name, self._csp.header_value(nonce)))
        return merged
