"""Sign-ins at the identity provider that have begun: used once, and only by the browser that began them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mks_hardening.security import SignInStore

FLOW_SECONDS: Final = 600
"""Time in which a person has to come back from the provider."""
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Flow(NamedTuple):
    """What the response of the provider must match, and where it leads.

    Attributes:
        nonce: required in the ID token.
        verifier: PKCE code verifier (RFC 7636).
        next_path: path to show afterwards.
        confirms: id of the signed-in user who confirms their identity; empty for a sign-in.
    """

    nonce: str
    verifier: str
    next_path: str
    confirms: str


def begin(store: SignInStore, browser: str, *, next_path: str, confirms: str) -> tuple[str, Flow]:
    """Return a new ``state`` and its flow, which are bound to the browser's cookie."""
    state, version = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    flow = Flow(secrets.token_urlsafe(32), secrets.token_urlsafe(32), next_path, confirms)
    data = json.dumps({"browser": _digest(browser), "flow": flow}).encode()
    store.replace(_key(state), data, expected=None, version=version, ttl=FLOW_SECONDS)
    return state, flow


def consume(store: SignInStore, state: str, browser: str) -> Flow | None:
    """Return the flow of a ``state``, once; ``None`` if it is unknown, used, expired or of another browser."""
    found = store.load(_key(state)) if _STATE.fullmatch(state) else None
    if found is None or not found.data:
        return None
    kept = json.loads(found.data)
    if not hmac.compare_digest(kept["browser"], _digest(browser)):
        return None
    version = secrets.token_urlsafe(16)
    used = store.replace(_key(state), b"", expected=found.version, version=version, ttl=FLOW_SECONDS)
    return Flow(*kept["flow"]) if used else None


def challenge_of(flow: Flow) -> str:
    """Return the PKCE code challenge of the method S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).decode().rstrip("=")


def _key(state: str) -> str:
    return f"provider:{_digest(state)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
