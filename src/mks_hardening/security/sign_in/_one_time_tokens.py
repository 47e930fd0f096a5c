"""Random one-time tokens: only a digest is stored, and a token is consumed with a compare-and-set.

A consumed entry stays as an empty one until it expires. So of two requests with one token exactly one succeeds,
even if the response of the store was lost and the write is sent again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard, cast

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry, SignInStore

__all__ = ["OneTimeTokens", "TokenEntry", "digest_of", "numbers_of"]

_TOKEN_BYTES: Final = 32
# Length of 32 bytes in base64 without padding.
_TOKEN_LENGTH: Final = 43
_USED: Final = b""
_TRIES: Final = 8


class TokenEntry(NamedTuple):
    """A valid entry, with the data required to consume it."""

    facts: dict[str, object]
    key: str
    version: str
    ttl: float

    def text(self, name: str) -> str:
        """Return one of its facts; empty if it is missing or not a string."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


class OneTimeTokens:
    """Tokens and markers in one store, on one clock."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: SignInStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def issue(self, kind: str, facts: dict[str, object], *, ttl: float) -> Op[str]:
        """Issue a new token for these facts."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        yield from self._write(f"{kind}:{digest_of(token)}", self._data(facts, ttl), expected=None, ttl=ttl)
        return token

    def find(self, kind: str, token: object) -> Op[TokenEntry | None]:
        """Return the entry of a token, unless it is consumed, expired or not a token."""
        if not _is_token(token):
            return None
        key = f"{kind}:{digest_of(token)}"
        stored = yield from call_store(self._store.load, key)
        return None if stored is None else self._living(key, stored)

    def hold(self, found: TokenEntry, *, longest: float) -> Op[TokenEntry | None]:
        """Reserve an entry for one caller until it is released or consumed; ``None`` if another caller holds it.

        Args:
            found: the entry.
            longest: seconds after which the caller is presumed to have crashed.
        """
        now = self._clock.time()
        until = found.facts.get("held_until")
        if isinstance(until, (int, float)) and 0 < until - now <= longest:
            return None
        return (yield from self._changed(found, {**found.facts, "held_until": now + longest}))

    def release(self, found: TokenEntry) -> Op[TokenEntry | None]:
        """Release a held entry for the next caller."""
        facts = {name: value for name, value in found.facts.items() if name != "held_until"}
        return (yield from self._changed(found, facts))

    def use(self, found: TokenEntry) -> Op[bool]:
        """Consume an entry; returns true for one caller only."""
        return (yield from self._write(found.key, _USED, expected=found.version, ttl=found.ttl))

    def set_marker(self, key: str, *, ttl: float) -> Op[bool]:
        """Set a marker; return whether there was none."""
        stored = yield from call_store(self._store.load, key)
        if stored is not None and self._living(key, stored) is not None:
            return False
        # An expired entry is replaced by its version: "only if missing" would find it, and the marker would be
        # lost.
        expected = None if stored is None else stored.version
        return (yield from self._write(key, self._data({}, ttl), expected=expected, ttl=ttl))

    def read_facts(self, key: str) -> Op[dict[str, object]]:
        """Return the facts under a key; empty if there is no valid entry."""
        stored = yield from call_store(self._store.load, key)
        found = None if stored is None else self._living(key, stored)
        return {} if found is None else found.facts

    def change(
        self, key: str, change: Callable[[dict[str, object]], dict[str, object]], *, ttl: float
    ) -> Op[None]:
        """Change the facts under a key, retrying after concurrent changes.

        Raises:
            BackendUnavailableError: every try met a concurrent change.
        """
        for _ in range(_TRIES):
            stored = yield from call_store(self._store.load, key)
            found = None if stored is None else self._living(key, stored)
            data = self._data(change({} if found is None else found.facts), ttl)
            expected = None if stored is None else stored.version
            if (yield from self._write(key, data, expected=expected, ttl=ttl)):
                return
        raise BackendUnavailableError("sign-in", "busy", operation="replace", sent=True)

    def remove_marker(self, key: str) -> Op[bool]:
        """Remove a marker; return whether there was one."""
        stored = yield from call_store(self._store.load, key)
        found = None if stored is None else self._living(key, stored)
        return found is not None and (yield from self.use(found))

    def _data(self, facts: dict[str, object], ttl: float) -> bytes:
        """Return the stored form.

        It contains its expiry time, which a reader enforces even if the store keeps the entry longer.
        """
        return _encoded({**facts, "until": self._clock.time() + ttl})

    def _living(self, key: str, stored: SignInEntry) -> TokenEntry | None:
        facts = _facts(stored.data)
        until = None if facts is None else facts.get("until")
        if facts is None or not isinstance(until, (int, float)):
            return None
        left = until - self._clock.time()
        return TokenEntry(facts, key, stored.version, left) if left > 0 else None

    def _changed(self, found: TokenEntry, facts: dict[str, object]) -> Op[TokenEntry | None]:
        """Write other facts with the same expiry; return the entry, or ``None`` after a concurrent change."""
        version = secrets.token_hex(8)
        written = yield from self._write(
            found.key, _encoded(facts), expected=found.version, ttl=found.ttl, version=version
        )
        return found._replace(facts=facts, version=version) if written else None

    def _write(
        self, key: str, data: bytes, *, expected: str | None, ttl: float, version: str = ""
    ) -> Op[bool]:
        # At least one second: Redis refuses an expiry of 0, and a consumed entry must outlive its request.
        return call_store(
            self._store.replace,
            key,
            data,
            expected=expected,
            version=version or secrets.token_hex(8),
            ttl=max(ttl, 1.0),
        )


def digest_of(*parts: str) -> str:
    """Return a digest to store instead of a secret or personal value."""
    # NUL between the parts: ("a", "bc") and ("ab", "c") must not be one key.
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def numbers_of(value: object) -> dict[str, int]:
    """Return a stored mapping of names to whole numbers, without entries that are none."""
    found = cast("dict[object, object]", value) if isinstance(value, dict) else {}
    return {str(name): number for name, number in found.items() if isinstance(number, int)}


def _is_token(token: object) -> TypeGuard[str]:
    return isinstance(token, str) and len(token) == _TOKEN_LENGTH and token.isascii()


def _encoded(facts: dict[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


def _facts(data: bytes) -> dict[str, object] | None:
    try:
        facts: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", facts) if isinstance(facts, dict) else None
