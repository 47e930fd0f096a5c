"""Policy for the attributes of an application's cookies, on plain values."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from mks_hardening._core.checks import boolean, strings
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._edge.session.cookie_header import is_cookie_name
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CookiePolicy", "CookieReview"]

SameSite: TypeAlias = Literal["Lax", "Strict"]

_SAME_SITES: Final = frozenset({"lax", "strict", "none"})
# RFC 6265bis, 4.1.3: browsers compare the prefixes without regard to case.
_SECURE_PREFIXES: Final = ("__secure-", "__host-", "__http-", "__host-http-")
_HTTP_PREFIXES: Final = ("__http-", "__host-http-")
_HOST_PREFIX: Final = "__host-"
# Names of frameworks whose scripts read the cookie to send its value in a header.
_READABLE: Final = ("csrftoken", "XSRF-TOKEN", "csrf_token")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_MOST_NAMES: Final = 200
_logger: Final = logging.getLogger("mks_hardening.wsgi")


class CookieReview(NamedTuple):
    """What a policy says about one ``Set-Cookie`` field.

    Attributes:
        name: name of the cookie.
        missing: attributes that the policy adds.
        defects: reasons why browsers reject the cookie, which only the application can remove.
    """

    name: str
    missing: tuple[str, ...]
    defects: tuple[str, ...]


class CookiePolicy:
    """Attributes that the cookies of the application get if it has not set them.

    Only missing attributes are added: an explicit ``SameSite=None`` stays (and gets ``Secure``, without which
    browsers reject it), and so do ``Partitioned``, ``Domain``, ``Path`` and the lifetime. A field that deletes a
    cookie is not changed, except for the attributes that the prefix of its name requires. Fields that browsers
    ignore are passed on as they are; a cookie without a name is one.

    Names that begin with ``__Secure-``, ``__Host-``, ``__Http-`` or ``__Host-Http-`` get the attributes that
    browsers require. A ``__Host-`` cookie with ``Domain``, or without ``Path=/``, is rejected by browsers; one
    warning for each name is logged.

    Args:
        secure: whether cookies get ``Secure``; switch it off only for development over plain HTTP.
        http_only: whether cookies get ``HttpOnly``, so that scripts cannot read them.
        same_site: ``"Lax"`` or ``"Strict"`` for cookies without a valid ``SameSite``; ``None`` to add none.
        readable: names of cookies that scripts read, which do not get ``HttpOnly``.
        exempt: names of cookies that are not changed at all.
        report_only: whether cookies stay as they are, and what would be added is logged once for each name.

    Raises:
        ConfigurationError: a name is not a cookie name or contains ``*``, or an option has the wrong type.

    Source: RFC 6265bis (4.1.2, 4.1.3); ASVS 5.0 V3.3.1 to V3.3.4; CWE-614, CWE-1004, CWE-1275.
    """

    __slots__ = (
        "_exempt",
        "_now",
        "_readable",
        "_reported",
        "http_only",
        "report_only",
        "same_site",
        "secure",
    )

    def __init__(
        self,
        *,
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite | None = "Lax",
        readable: Iterable[str] = _READABLE,
        exempt: Iterable[str] = (),
        report_only: bool = False,
    ) -> None:
        self.secure: bool = boolean(secure, parameter="secure")
        self.http_only: bool = boolean(http_only, parameter="http_only")
        if same_site not in ("Lax", "Strict", None):
            raise ConfigurationError(
                "same_site must be 'Lax', 'Strict' or None; a cookie for other sites sets SameSite=None itself",
                parameter="same_site",
            )
        self.same_site: SameSite | None = same_site
        self.report_only: bool = boolean(report_only, parameter="report_only")
        self._readable = _names(readable, parameter="readable")
        self._exempt = _names(exempt, parameter="exempt")
        self._reported: set[tuple[str, tuple[str, ...]]] = set()
        self._now: Callable[[], float] = SYSTEM_CLOCK.time

    def review(self, field: str) -> CookieReview | None:
        """Return what the policy says about the value of a ``Set-Cookie`` field; ``None`` if it is left alone."""
        pair, *rest = field.split(";")
        name, _, value = pair.partition("=") if "=" in pair else ("", "", pair)
        name = name.strip(" \t")
        if name in self._exempt or not (name or value.strip(" \t")) or _CONTROL(field):
            return None  # also what browsers ignore (RFC 6265bis, 5.6)
        given: dict[str, str] = {}
        for part in rest:
            key, _, value = part.partition("=")
            given[key.strip(" \t").lower()] = value.strip(" \t")  # the last one decides (RFC 6265bis, 5.6)
        lower = name.lower()
        deletes = self._deletes(given)
        missing = [
            text
            for attribute, text, is_wanted in (
                ("secure", "Secure", self._wants_secure(lower, deletes=deletes)),
                (
                    "httponly",
                    "HttpOnly",
                    lower.startswith(_HTTP_PREFIXES)
                    or (self.http_only and not deletes and name not in self._readable),
                ),
            )
            if is_wanted and attribute not in given
        ]
        if self.same_site and not deletes and given.get("samesite", "").lower() not in _SAME_SITES:
            missing.append(f"SameSite={self.same_site}")
        return CookieReview(name, tuple(missing), tuple(_defects(lower, given)))

    def apply(self, fields: list[tuple[str, str]]) -> None:
        """Add the missing attributes to the ``Set-Cookie`` fields of a response in place."""
        for position, (field, value) in enumerate(fields):
            if len(field) != 10 or field.lower() != "set-cookie":
                continue
            review = self.review(value)
            if review is None:
                continue
            if review.missing and not self.report_only:
                fields[position] = (field, "; ".join((value.rstrip("; \t"), *review.missing)))
            if review.defects or (self.report_only and review.missing):
                self._report(review)

    def _wants_secure(self, name: str, *, deletes: bool) -> bool:
        if not self.secure:
            return False
        return not deletes or name.startswith(_SECURE_PREFIXES)

    def _deletes(self, given: dict[str, str]) -> bool:
        max_age = given.get("max-age", "")
        if max_age.removeprefix("-").isdecimal():  # takes precedence over Expires
            return len(max_age) < 20 and int(max_age) <= 0
        expires = given.get("expires")
        if not expires:
            return False
        try:
            return parsedate_to_datetime(expires[:64]).timestamp() <= self._now()
        except (ValueError, OverflowError, TypeError, IndexError):
            return False

    def _report(self, review: CookieReview) -> None:
        seen = (review.name, review.missing + review.defects)
        if seen in self._reported or len(self._reported) >= _MOST_NAMES:
            return
        self._reported.add(seen)
        for defect in review.defects:
            _logger.warning("cookie %s: browsers reject it: %s", review.name, defect)
        if self.report_only and review.missing:
            _logger.warning("cookie %s: the policy would add %s", review.name, ", ".join(review.missing))

    def __repr__(self) -> str:
        return (
            f"CookiePolicy(secure={self.secure}, http_only={self.http_only}, same_site={self.same_site!r}, "
            f"report_only={self.report_only})"
        )


def _defects(name: str, given: dict[str, str]) -> Iterable[str]:
    if name.startswith(_HOST_PREFIX):
        if given.get("domain"):
            yield "its prefix __Host- forbids Domain; omit it, or rename the cookie"
        if given.get("path") != "/":
            yield "its prefix __Host- requires Path=/; set it, or rename the cookie"


def _names(names: Iterable[str], *, parameter: str) -> frozenset[str]:
    listed = strings(names, parameter=parameter, of="names of cookies")
    for name in listed:
        if "*" in name:
            raise ConfigurationError(
                f"{parameter}: {name!r} is no pattern, and would match only a cookie of just this name; list each "
                "name in full",
                parameter=parameter,
            )
        if not is_cookie_name(name):
            raise ConfigurationError(
                f"{parameter}: {name!r} is not a cookie name, a token of RFC 6265", parameter=parameter
            )
    return frozenset(listed)
