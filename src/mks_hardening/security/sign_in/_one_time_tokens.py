"""Random tokens that work once: only a digest is kept, and using one up is a compare-and-set.

A used entry stays as an empty one until it expires, so that of two requests with one token exactly one goes on,
also when the answer of the store was lost and the write is sent again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard, cast

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import ask
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry, SignInStore

__all__ = ["FoundToken", "OneTimeTokens", "digest_of", "numbers_of"]

_TOKEN_BYTES: Final = 32
# What 32 bytes come to in base64 without padding.
_TOKEN_LENGTH: Final = 43
_USED: Final = b""
_TRIES: Final = 8


class FoundToken(NamedTuple):
    """A living entry, and what using it up needs."""

    facts: dict[str, object]
    key: str
    version: str
    ttl: float

    def text(self, name: str) -> str:
        """One of its facts; empty where it is none."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


class OneTimeTokens:
    """Entries of one store, on one clock."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: SignInStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def issue(self, kind: str, facts: dict[str, object], *, ttl: float) -> Op[str]:
        """A new token for these facts."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        yield from self._write(f"{kind}:{digest_of(token)}", self._data(facts, ttl), expected=None, ttl=ttl)
        return token

    def find(self, kind: str, token: object) -> Op[FoundToken | None]:
        """The entry of a token, unless it is used, expired, or no token at all."""
        if not _is_token(token):
            return None
        key = f"{kind}:{digest_of(token)}"
        stored = yield from ask(self._store.load, key)
        return None if stored is None else self._living(key, stored)

    def hold(self, found: FoundToken, *, longest: float) -> Op[FoundToken | None]:
        """Keep an entry for one caller until it is released or used; ``None`` where another caller has it.

        Args:
            found: the entry.
            longest: seconds after which the caller is believed to have crashed.
        """
        now = self._clock.time()
        until = found.facts.get("held_until")
        if isinstance(until, (int, float)) and 0 < until - now <= longest:
            return None
        return (yield from self._changed(found, {**found.facts, "held_until": now + longest}))

    def release(self, found: FoundToken) -> Op[FoundToken | None]:
        """Give an entry that was held to the next caller."""
        facts = {name: value for name, value in found.facts.items() if name != "held_until"}
        return (yield from self._changed(found, facts))

    def use(self, found: FoundToken) -> Op[bool]:
        """Use an entry up; true for one caller alone."""
        return (yield from self._write(found.key, _USED, expected=found.version, ttl=found.ttl))

    def mark(self, key: str, *, ttl: float) -> Op[bool]:
        """Leave a mark; true when there was none."""
        stored = yield from ask(self._store.load, key)
        if stored is not None and self._living(key, stored) is not None:
            return False
        # A dead entry in place is replaced as such: a plain "only if missing" would find it, and the mark be
        # lost.
        expected = None if stored is None else stored.version
        return (yield from self._write(key, self._data({}, ttl), expected=expected, ttl=ttl))

    def peek(self, key: str) -> Op[dict[str, object]]:
        """The facts under a key; none where there is no living entry."""
        stored = yield from ask(self._store.load, key)
        found = None if stored is None else self._living(key, stored)
        return {} if found is None else found.facts

    def change(
        self, key: str, change: Callable[[dict[str, object]], dict[str, object]], *, ttl: float
    ) -> Op[None]:
        """Change the facts under a key, also while others change them.

        Raises:
            BackendUnavailableError: others have changed them again and again.
        """
        for _ in range(_TRIES):
            stored = yield from ask(self._store.load, key)
            found = None if stored is None else self._living(key, stored)
            data = self._data(change({} if found is None else found.facts), ttl)
            expected = None if stored is None else stored.version
            if (yield from self._write(key, data, expected=expected, ttl=ttl)):
                return
        raise BackendUnavailableError("sign-in", "busy", operation="replace", sent=True)

    def unmark(self, key: str) -> Op[bool]:
        """Take a mark away; whether there was one."""
        stored = yield from ask(self._store.load, key)
        found = None if stored is None else self._living(key, stored)
        return found is not None and (yield from self.use(found))

    def _data(self, facts: dict[str, object], ttl: float) -> bytes:
        """The stored form; it holds its own end, which the store may miss but a reader does not."""
        return _encoded({**facts, "until": self._clock.time() + ttl})

    def _living(self, key: str, stored: SignInEntry) -> FoundToken | None:
        facts = _facts(stored.data)
        until = None if facts is None else facts.get("until")
        if facts is None or not isinstance(until, (int, float)):
            return None
        left = until - self._clock.time()
        return FoundToken(facts, key, stored.version, left) if left > 0 else None

    def _changed(self, found: FoundToken, facts: dict[str, object]) -> Op[FoundToken | None]:
        """The entry with other facts, and the same end; ``None`` where another caller was faster."""
        version = secrets.token_hex(8)
        written = yield from self._write(
            found.key, _encoded(facts), expected=found.version, ttl=found.ttl, version=version
        )
        return found._replace(facts=facts, version=version) if written else None

    def _write(
        self, key: str, data: bytes, *, expected: str | None, ttl: float, version: str = ""
    ) -> Op[bool]:
        # At least a second, as Redis refuses an expiry of 0 and a used entry must outlive the request that used it.
        return ask(
            self._store.replace,
            key,
            data,
            expected=expected,
            version=version or secrets.token_hex(8),
            ttl=max(ttl, 1.0),
        )


def digest_of(*parts: str) -> str:
    """A digest to store instead of what is secret or personal."""
    # NUL between the parts: ("a", "bc") and ("ab", "c") must not be one key.
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def numbers_of(value: object) -> dict[str, int]:
    """A mapping of names to whole numbers, as it was stored; what is none is left out."""
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
