"""A software authenticator with a browser around it: creates passkeys, signs, and can send invalid data.

Written from WebAuthn level 3 (sections 5.8.1, 6.1, 6.5) and RFC 9053, not from the library that is tested with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

__all__ = ["Lies", "SoftAuthenticator", "b64", "unb64"]

UP, UV, BE, BS, AT = 1, 4, 8, 16, 64


@dataclass(frozen=True, kw_only=True)
class Lies:
    """The invalid parts of a response; ``None`` and false are valid."""

    origin: str | None = None
    type: str | None = None
    challenge: bytes | None = None
    rp_id: str | None = None
    cross_origin: Any = False
    top_origin: str | None = None
    present: bool = True
    verified: bool | None = None
    eligible: bool | None = None
    backed_up: bool | None = None
    count: int | None = None
    handle: str | None = ""
    signature: bytes | None = None
    signed_with: Any = None
    credential: bytes | None = None
    client_data: bytes | None = None
    auth_data: bytes | None = None


TRUTH = Lies()


@dataclass
class Credential:
    """One passkey."""

    id: bytes
    key: Any
    rp_id: str
    handle: str
    count: int = 0


@dataclass
class SoftAuthenticator:
    """Creates and uses passkeys, for pages of one origin."""

    origin: str = "https://example.com"
    algorithm: int = -7
    counts: bool = True
    verifies: bool = True
    eligible: bool = False
    backed_up: bool = False
    credentials: list[Credential] = field(default_factory=list)

    def create(self, options: Any, lies: Lies = TRUTH) -> dict[str, Any]:
        """``navigator.credentials.create()``, in the format of ``toJSON()``."""
        options = json.loads(options) if isinstance(options, str) else options
        made = Credential(
            lies.credential or secrets.token_bytes(32),
            self._new_key(),
            options["rp"]["id"],
            options["user"]["id"],
        )
        assert self.algorithm in [one["alg"] for one in options["pubKeyCredParams"]]
        self.credentials.append(made)
        attested = bytes(16) + len(made.id).to_bytes(2, "big") + made.id + cose(made.key, self.algorithm)
        auth_data = self._auth_data(made, lies, attested)
        client_data = self._client_data("webauthn.create", options, lies)
        attestation = cbor({"fmt": "none", "attStmt": {}, "authData": lies.auth_data or auth_data})
        return self._answer(
            made,
            {
                "clientDataJSON": b64(lies.client_data or client_data),
                "attestationObject": b64(attestation),
                "transports": ["internal", "hybrid"],
            },
        )

    def get(self, options: Any, lies: Lies = TRUTH, *, which: int = -1) -> dict[str, Any]:
        """``navigator.credentials.get()``, in the format of ``toJSON()``."""
        options = json.loads(options) if isinstance(options, str) else options
        used = self.credentials[which]
        if self.counts:
            used.count += 1
        auth_data = lies.auth_data or self._auth_data(used, lies)
        client_data = lies.client_data or self._client_data("webauthn.get", options, lies)
        signed = sign(lies.signed_with or used.key, auth_data + hashlib.sha256(client_data).digest())
        handle = used.handle if lies.handle == "" else lies.handle
        body = {
            "clientDataJSON": b64(client_data),
            "authenticatorData": b64(auth_data),
            "signature": b64(signed if lies.signature is None else lies.signature),
        }
        return self._answer(used, body if handle is None else {**body, "userHandle": handle})

    def clone(self) -> SoftAuthenticator:
        """Return a copy with the same keys and its own counter."""
        copies = [Credential(c.id, c.key, c.rp_id, c.handle, c.count) for c in self.credentials]
        return SoftAuthenticator(self.origin, self.algorithm, credentials=copies)

    def _auth_data(self, credential: Credential, lies: Lies, attested: bytes = b"") -> bytes:
        verified = self.verifies if lies.verified is None else lies.verified
        eligible = self.eligible if lies.eligible is None else lies.eligible
        backed_up = self.backed_up if lies.backed_up is None else lies.backed_up
        flags = UP * lies.present | UV * verified | BE * eligible | BS * backed_up | AT * bool(attested)
        count = credential.count if lies.count is None else lies.count
        rp_id = hashlib.sha256((lies.rp_id or credential.rp_id).encode()).digest()
        return rp_id + bytes([flags]) + count.to_bytes(4, "big") + attested

    def _client_data(self, kind: str, options: Any, lies: Lies) -> bytes:
        challenge = options["challenge"] if lies.challenge is None else b64(lies.challenge)
        data: dict[str, Any] = {"type": lies.type or kind, "challenge": challenge}
        data |= {"origin": lies.origin or self.origin, "crossOrigin": lies.cross_origin}
        if lies.top_origin is not None:
            data["topOrigin"] = lies.top_origin
        return json.dumps(data).encode()

    def _answer(self, credential: Credential, response: dict[str, Any]) -> dict[str, Any]:
        name = b64(credential.id)
        return {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }

    def _new_key(self) -> Any:
        if self.algorithm == -8:
            return ed25519.Ed25519PrivateKey.generate()
        if self.algorithm == -257:
            return rsa.generate_private_key(65537, 2048)
        return ec.generate_private_key(ec.SECP256R1())


def sign(key: Any, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return bytes(key.sign(data, ec.ECDSA(hashes.SHA256())))


def cose(key: Any, algorithm: int) -> bytes:
    """Return the public key as a COSE key (RFC 9053, section 7; RFC 8230 for RSA)."""
    public = key.public_key()
    if algorithm == -8:
        return cbor({1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()})
    numbers = public.public_numbers()
    if algorithm == -257:
        return cbor({1: 3, 3: -257, -1: numbers.n.to_bytes(256, "big"), -2: numbers.e.to_bytes(3, "big")})
    return cbor({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})


def cbor(value: Any) -> bytes:
    """Encode the part of RFC 8949 that an authenticator needs."""
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    return _head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value.items())


def _head(kind: int, number: int) -> bytes:
    if number < 24:
        return bytes([kind << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 256**size)
    return bytes([kind << 5 | 24 + (1, 2, 4, 8).index(size)]) + number.to_bytes(size, "big")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
