"""Client of one OpenID Connect provider: authorization code flow with PKCE, discovery and keys kept for an hour.

Tokens live for one request; they are never stored, logged or sent to the browser.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import jwt

from knowledge_system.domain.provider_claims import ClaimsError, check_token
from knowledge_system.services.identity.provider_flows import Flow, challenge_of
from knowledge_system.services.identity.provider_http import ProviderError, fetch_json

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

_log = logging.getLogger(__name__)

_FRESH: Final = 3600.0
_USABLE: Final = 86_400.0
"""Age up to which the last discovery is used while the provider does not respond."""
_PAUSE: Final = 15.0
"""Seconds from the end of an attempt to the next: after a failure, and for the keys because of an unknown one."""


class _Discovered(NamedTuple):
    metadata: Mapping[str, Any]
    keys: tuple[Mapping[str, Any], ...]
    at: float


@dataclass(eq=False, repr=False)
class OpenIDProvider:
    """One provider, as the settings name it.

    Args:
        issuer: exact issuer; discovery is below it.
        client_id: id of this application at the provider.
        client_secret: secret of this application.
        redirect_uri: address that the provider sends browsers back to.
        algorithm: the only accepted signature algorithm of ID tokens.
        clock: clock of the application.
    """

    issuer: str
    _: KW_ONLY
    client_id: str
    client_secret: str
    redirect_uri: str
    algorithm: str
    clock: Clock

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._found: _Discovered | None = None
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"OpenIDProvider({self.issuer!r})"

    def fault(self) -> str:
        """Return why the provider cannot be used; empty if it can."""
        try:
            self._discover()
        except ProviderError as error:
            return error.reason
        return ""

    def authorization_url(self, state: str, flow: Flow) -> str:
        """Return the address that a browser is sent to; to confirm, the person must authenticate again.

        Raises:
            ProviderError: discovery failed.
        """
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid email profile",
            "state": state,
            "nonce": flow.nonce,
            "code_challenge": challenge_of(flow),
            "code_challenge_method": "S256",
            **({"prompt": "login", "max_age": "0"} if flow.confirms else {}),
        }
        return _with_query(self._discover().metadata["authorization_endpoint"], asked)

    def check_response_issuer(self, given: str | None) -> None:
        """Check ``iss`` of an authorization response, so that the code of another provider is not sent here.

        Raises:
            ClaimsError: ``issuer`` (RFC 9207, 2.4).
            ProviderError: discovery failed.
        """
        required = self._discover().metadata.get("authorization_response_iss_parameter_supported") is True
        if given != self.issuer and (given is not None or required):
            raise ClaimsError("issuer")

    def claims(self, code: str, flow: Flow) -> dict[str, Any]:
        """Exchange a code for an ID token, and return its checked claims.

        Raises:
            ClaimsError: the code or the token is refused.
            ProviderError: the provider did not respond as it should.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": flow.verifier,
        }
        credentials = f"{quote(self.client_id, safe='')}:{quote(self.client_secret, safe='')}"
        basic = base64.b64encode(credentials.encode()).decode()
        try:
            response = fetch_json(
                self._discover().metadata["token_endpoint"],
                form=urlencode(form).encode(),
                headers={"Authorization": f"Basic {basic}"},
            )
        except ProviderError as error:
            if error.reason in {"status 400", "status 401"}:  # invalid_grant, or our own credentials
                _log.warning("the identity provider %s refused a code (%s)", self.issuer, error.reason)
                raise ClaimsError("code") from None
            raise
        token = response.get("id_token")
        if not isinstance(token, str):
            raise ProviderError("no ID token")
        claims = self._verified(token)
        check_token(
            claims, issuer=self.issuer, client_id=self.client_id, nonce=flow.nonce, now=self.clock.time()
        )
        return claims

    def sign_out_url(self, return_to: str) -> str | None:
        """Return the address of the provider's own sign-out; ``None`` if it has none, or does not respond.

        Without ``id_token_hint``: no token belongs into an address. The provider asks the person instead.
        """
        try:
            endpoint = self._discover().metadata.get("end_session_endpoint")
        except ProviderError:
            return None
        if not isinstance(endpoint, str) or not self._is_safe(endpoint):
            return None
        return _with_query(endpoint, {"client_id": self.client_id, "post_logout_redirect_uri": return_to})

    def _verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that is signed by a key of the provider with the pinned algorithm."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != self.algorithm:
                raise ClaimsError("signature")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=[self.algorithm],
                # ``check_token`` does the rest, with the application's clock.
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise ClaimsError("signature") from error
        return claims

    def _key(self, kid: object) -> Any:
        """Return the key of a token, of the type that the pinned algorithm needs; never one from its header."""
        keys = self._discover().keys
        found = [key for key in keys if kid is None or key.get("kid") == kid]
        if not found:
            keys = self._discover(for_unknown_key=True).keys
            found = [key for key in keys if key.get("kid") == kid]
        if len(found) != 1:
            raise ClaimsError("signature")
        return jwt.PyJWK(dict(found[0]), self.algorithm).key

    def _discover(self, *, for_unknown_key: bool = False) -> _Discovered:
        """Return metadata and keys, at most an hour old unless the provider does not respond.

        Raises:
            ProviderError: nothing usable was found, now or within the last seconds.
        """
        before = self._usable()
        # A thread with an older discovery does not wait for the thread that reads the next one.
        if not self._lock.acquire(blocking=before is None or for_unknown_key) and before is not None:
            return before
        try:
            found, now = self._usable(), self.clock.monotonic()
            fresh = found is not None and now - found.at < _FRESH
            if found is not None and (now < self._not_before or (fresh and not for_unknown_key)):
                return found
            if now < self._not_before:
                raise ProviderError("failed a moment ago")
            try:
                self._found = found = self._read(now)
            except ProviderError as error:
                _log.warning("the identity provider %s cannot be used: %s", self.issuer, error.reason)
                if found is None:
                    raise
            finally:
                # From the end: requests that have waited would otherwise each wait for the provider again.
                self._not_before = self.clock.monotonic() + _PAUSE
            return found
        finally:
            self._lock.release()

    def _usable(self) -> _Discovered | None:
        found = self._found
        return found if found is not None and self.clock.monotonic() - found.at < _USABLE else None

    def _read(self, now: float) -> _Discovered:
        metadata = fetch_json(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != self.issuer:
            raise ProviderError("discovery is that of another issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not self._is_safe(metadata.get(name)):
                raise ProviderError(f"discovery has no usable {name}")
        for name, needed in (
            ("code_challenge_methods_supported", "S256"),
            ("id_token_signing_alg_values_supported", self.algorithm),
        ):
            listed = metadata.get(name, [needed])
            if not isinstance(listed, list) or needed not in listed:
                raise ProviderError(f"{name} lacks {needed}")
        keys = fetch_json(metadata["jwks_uri"]).get("keys")
        if not isinstance(keys, list):
            raise ProviderError("no keys")
        usable = [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]
        return _Discovered(metadata, tuple(usable), now)

    def _is_safe(self, address: object) -> bool:
        """Whether an endpoint is reached over TLS; without it only if the issuer is on this machine, too."""
        return isinstance(address, str) and (
            urlsplit(address).scheme == "https"
            or (
                urlsplit(self.issuer).scheme == "http"
                and urlsplit(address).netloc == urlsplit(self.issuer).netloc
            )
        )


def _with_query(endpoint: str, asked: Mapping[str, str]) -> str:
    return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}"
