"""Rules of ``CSRFMiddleware`` on plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import boolean, whole_number
from mks_hardening._core.web.paths import PathRules, exemptions
from mks_hardening._edge.cors.cors_policy import CORSPolicy
from mks_hardening._edge.csrf.same_origin import SameOrigin
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening._edge.safe_methods import SAFE_METHODS

__all__ = ["FORBIDDEN", "CSRFRules"]

_DETAIL: Final = "This request seems to come from another site. Reload the page and try again."
_ORIGINS: Final = "MKS_ALLOWED_ORIGINS"
_PATHS: Final = "MKS_CSRF_EXEMPT_PATHS"
FORBIDDEN: Final = {
    "origin": RefusalResponse("origin", 403, _DETAIL, setting=_ORIGINS),
    "fetch_site": RefusalResponse("fetch_site", 403, _DETAIL, setting=_PATHS),
    "referer": RefusalResponse("referer", 403, _DETAIL, setting=_ORIGINS),
    "token": RefusalResponse("token", 403, _DETAIL, setting=_PATHS),
}
"""The responses by the rule of ``OriginError``."""


class CSRFRules:
    """The validated options of ``CSRFMiddleware``, with the same arguments.

    Attributes:
        exempt: paths that are not checked.
        max_form_bytes: largest form that is searched for a token.
        same_origin: the rules for the sender of a request.
        secure_cookie: whether the cookie is ``Secure``.
    """

    __slots__ = ("exempt", "max_form_bytes", "same_origin", "secure_cookie")

    def __init__(
        self,
        *,
        allowed_origins: Iterable[str | CORSPolicy],
        exempt_paths: Iterable[str],
        max_form_bytes: int,
        secure_cookie: bool,
    ) -> None:
        self.same_origin: SameOrigin = SameOrigin(allowed_origins)
        self.exempt: PathRules = exemptions(exempt_paths, parameter="exempt_paths")
        self.max_form_bytes: int = whole_number(max_form_bytes, parameter="max_form_bytes", minimum=0)
        self.secure_cookie: bool = boolean(secure_cookie, parameter="secure_cookie")

    def checks(self, method: str, path: str) -> bool:
        """Return whether the sender of such a request is checked; methods in another spelling are."""
        return method not in SAFE_METHODS and not self.exempt.match(path)
