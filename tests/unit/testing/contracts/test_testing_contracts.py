"""Each contract suite notices backends that are wrong in one way."""

from __future__ import annotations

import inspect
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache
from mks_hardening.protocols import SessionRecord
from mks_hardening.security import (
    Decision,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    RateLimiter,
)
from mks_hardening.testing import (
    CacheContract,
    FrozenClock,
    LimiterContract,
    PasskeyStoreContract,
    SessionStoreContract,
    SignInStoreContract,
    TwoFactorStoreContract,
)
from mks_hardening.wsgi import MemorySessionStore


def folded(text: str) -> str:
    return text.lower()


def stripped(text: str) -> str:
    return text.strip()


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


CHANGES = [folded, stripped, composed, compatible]


# --- sessions


class _MemorySessions(MemorySessionStore):
    """Without the slots of the original, so that a derived store may keep something."""


class EndUserSparesExpired(_MemorySessions):
    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        ended = [record for record in self.sessions(user_id, now=now) if record.key != keep]
        for record in ended:
            self.end(record.key, reason="revoked")
        return len(ended)


class RotatedKeepsExpiry(_MemorySessions):
    def rotate(self, key: str, new_key: str, /, **options: Any) -> SessionRecord | None:
        before = self._records.get(key)
        moved = super().rotate(key, new_key, **options)
        if before is not None:
            self._records[key] = self._records[key]._replace(expires_at=before.expires_at)
        return moved


class ReplacedKeepsExpiry(_MemorySessions):
    def create(self, record: SessionRecord, /, *, replaces: str | None = None, **options: Any) -> list[str]:
        before = self._records.get(replaces or "")
        ended = super().create(record, replaces=replaces, **options)
        if before is not None:
            key = before.key
            self._records[key] = self._records[key]._replace(expires_at=before.expires_at)
        return ended


class ReplacedKeepsData(_MemorySessions):
    def create(self, record: SessionRecord, /, *, replaces: str | None = None, **options: Any) -> list[str]:
        before = self._records.get(replaces or "")
        ended = super().create(record, replaces=replaces, **options)
        if before is not None:
            self._records[before.key] = self._records[before.key]._replace(data=before.data)
        return ended


class UpdatesAreLost(_MemorySessions):
    """Compares, lets others run, and writes."""

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        record = self._records.get(key)
        if record is None or record.ended or record.version != version:
            return False
        time.sleep(0.001)
        self._records[key] = record._replace(data=data, version=version + 1)
        return True


class DataIsCut(_MemorySessions):
    def load(self, key: str, /) -> SessionRecord | None:
        record = super().load(key)
        return None if record is None else record._replace(data=record.data[:4096])


class AsyncKeepIgnored(_MemorySessions):
    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        return self.end_user(user_id, now=now)


class AsyncRotationIgnoresData(_MemorySessions):
    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        return self.rotate(key, new_key, now=now)


class AsyncReplacesIgnored(_MemorySessions):
    async def acreate(self, record: SessionRecord, /, **options: Any) -> list[str]:
        return self.create(record, **{**options, "replaces": None})


class UserIdsFolded(_MemorySessions):
    change = staticmethod(folded)

    def create(self, record: SessionRecord, /, **options: Any) -> list[str]:
        return super().create(record._replace(user_id=self.change(record.user_id)), **options)

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        return super().sessions(self.change(user_id), now=now)

    def end_user(self, user_id: str, /, **options: Any) -> int:
        return super().end_user(self.change(user_id), **options)


class UserIdsComposed(UserIdsFolded):
    change = staticmethod(composed)


# --- the other stores, with names changed on their way in


class TwoFactors(MemoryTwoFactorStore):
    change: Callable[[str], str] = staticmethod(str)
    change_async: Callable[[str], str] | None = None

    def load(self, user_id: str, /) -> Any:
        return super().load(self.change(user_id))

    def replace(self, user_id: str, data: bytes | None, /, **options: Any) -> bool:
        return super().replace(self.change(user_id), data, **options)

    async def aload(self, user_id: str, /) -> Any:
        return self.load((self.change_async or str)(user_id))

    async def areplace(self, user_id: str, data: bytes | None, /, **options: Any) -> bool:
        return self.replace((self.change_async or str)(user_id), data, **options)


class AsyncFactorsOverwrite(MemoryTwoFactorStore):
    async def areplace(
        self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str
    ) -> bool:
        present = self.load(user_id)
        expected = expected if present is None or expected is None else present.version
        return self.replace(user_id, data, expected=expected, version=version)


class SignIns(MemorySignInStore):
    change: Callable[[str], str] = staticmethod(str)
    change_async: Callable[[str], str] | None = None

    def load(self, key: str, /) -> Any:
        return super().load(self.change(key))

    def replace(self, key: str, data: bytes, /, **options: Any) -> bool:
        return super().replace(self.change(key), data, **options)

    async def aload(self, key: str, /) -> Any:
        return self.load((self.change_async or str)(key))

    async def areplace(self, key: str, data: bytes, /, **options: Any) -> bool:
        return self.replace((self.change_async or str)(key), data, **options)


class AsyncTtlIgnored(MemorySignInStore):
    async def areplace(self, key: str, data: bytes, /, *, ttl: float, **options: Any) -> bool:
        return self.replace(key, data, ttl=3600, **options)


class Passkeys(MemoryPasskeyStore):
    change: Callable[[str], str] = staticmethod(str)

    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        super().save_challenge(folded(key) if self.change is folded else key, data, ttl=ttl)

    def consume_challenge(self, key: str, /) -> bytes | None:
        return super().consume_challenge(folded(key) if self.change is folded else key)

    def assign_owner(self, credential: str, user_id: str, /) -> str:
        return super().assign_owner(credential, self.change(user_id))

    def release(self, credential: str, user_id: str, /) -> bool:
        return super().release(credential, self.change(user_id))


class Limits:
    """A limiter in memory with something changed on the way in or out."""

    def __init__(
        self,
        groups: Mapping[str, str],
        *,
        change: Callable[[str], str] = str,
        change_async: Callable[[str], str] = str,
        scale: float = 1,
        scale_async: float = 1,
        cost_async: int | None = None,
    ) -> None:
        self._limiter = RateLimiter(groups, clock=FrozenClock())
        self._change, self._change_async = change, change_async
        self._scale, self._scale_async = scale, scale_async
        self._cost_async = cost_async

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decision:
        return self._scaled(self._limiter.hit(group, self._change(key), cost=cost), self._scale)

    async def ahit(self, group: str, key: str, *, cost: int = 1) -> Decision:
        cost = cost if self._cost_async is None else self._cost_async
        return self._scaled(self.hit(group, self._change_async(key), cost=cost), self._scale_async)

    @staticmethod
    def _scaled(decision: Decision, factor: float) -> Decision:
        if decision.retry_after is None or factor == 1:
            return decision
        fields = {name: getattr(decision, name) for name in inspect.signature(Decision).parameters}
        return Decision(**{**fields, "retry_after": decision.retry_after * factor})


# --- caches: something that a call was told is dropped


class Forgetful(MemoryCache):
    drop: str = ""
    where: str = ""

    def _without(self, where: str, options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if (where, name) != (self.where, self.drop)}

    def set_many(self, values: Mapping[str, object], **options: Any) -> bool:
        return super().set_many(values, **self._without("set_many", options))

    def get_or_compute(self, key: str, compute: Callable[[], Any], **options: Any) -> Any:
        return super().get_or_compute(key, compute, **self._without("get_or_compute", options))

    async def aset(self, key: str, value: object, **options: Any) -> bool:
        return await super().aset(key, value, **self._without("aset", options))

    async def aset_many(self, values: Mapping[str, object], **options: Any) -> bool:
        return await super().aset_many(values, **self._without("aset_many", options))

    async def aget_or_compute(self, key: str, compute: Callable[[], Any], **options: Any) -> Any:
        return await super().aget_or_compute(key, compute, **self._without("aget_or_compute", options))


class KeysChanged(MemoryCache):
    change: Callable[[str], str] = staticmethod(str)

    def get(self, key: str, default: object = None) -> Any:
        return super().get(self.change(key) or "-", default)

    def set_many(self, values: Mapping[str, object], **options: Any) -> bool:
        return super().set_many({self.change(key) or "-": value for key, value in values.items()}, **options)


# --- running a suite


def _sessions(make: Callable[[], Any]) -> type:
    return type("Contract", (SessionStoreContract,), {"make_store": lambda _: make()})


def _factors(make: Callable[[], Any]) -> type:
    return type("Contract", (TwoFactorStoreContract,), {"make_store": lambda _: make()})


def _passkeys(make: Callable[[], Any]) -> type:
    return type("Contract", (PasskeyStoreContract,), {"make_store": lambda _: make()})


def _sign_ins(make: Callable[..., Any]) -> type:
    class Contract(SignInStoreContract):
        def make_store(self) -> Any:
            self.clock = FrozenClock()
            return make(clock=self.clock)

        def pass_time(self, seconds: float) -> None:
            self.clock.advance(seconds)

    return Contract


def _limiters(make: Callable[..., Any]) -> type:
    return type("Contract", (LimiterContract,), {"make_limiter": lambda _, groups: make(groups)})


def _caches(make: Callable[..., Any]) -> type:
    class Contract(CacheContract):
        def make_cache(self, namespace: str, *, clock: FrozenClock) -> Any:
            return make(namespace=namespace, jitter=0, clock=clock)

    return Contract


def _variants() -> Iterator[tuple[str, type]]:
    for kind in (
        *(EndUserSparesExpired, RotatedKeepsExpiry, ReplacedKeepsExpiry, ReplacedKeepsData),
        *(UpdatesAreLost, DataIsCut, UserIdsFolded, UserIdsComposed),
        *(AsyncKeepIgnored, AsyncRotationIgnoresData, AsyncReplacesIgnored),
    ):
        yield f"sessions-{kind.__name__}", _sessions(kind)
    yield "factors-AsyncFactorsOverwrite", _factors(AsyncFactorsOverwrite)
    yield "sign-in-AsyncTtlIgnored", _sign_ins(AsyncTtlIgnored)
    for change in CHANGES:
        name = change.__name__
        plain, twin = {"change": staticmethod(change)}, {"change_async": staticmethod(change)}
        yield f"factors-{name}", _factors(type("Changed", (TwoFactors,), plain))
        yield f"factors-async-{name}", _factors(type("Changed", (TwoFactors,), twin))
        yield f"sign-in-{name}", _sign_ins(type("Changed", (SignIns,), plain))
        yield f"sign-in-async-{name}", _sign_ins(type("Changed", (SignIns,), twin))
        yield f"passkeys-{name}", _passkeys(type("Changed", (Passkeys,), plain))
        yield f"limiter-{name}", _limiters(lambda groups, change=change: Limits(groups, change=change))
        yield (
            f"limiter-async-{name}",
            _limiters(lambda groups, change=change: Limits(groups, change_async=change)),
        )
        yield f"cache-{name}", _caches(type("Changed", (KeysChanged,), plain))
    yield "limiter-milliseconds", _limiters(lambda groups: Limits(groups, scale=1000))
    yield "limiter-async-milliseconds", _limiters(lambda groups: Limits(groups, scale_async=1000))
    yield "limiter-async-cost", _limiters(lambda groups: Limits(groups, cost_async=1))
    for where in ("set_many", "get_or_compute", "aset", "aset_many", "aget_or_compute"):
        for drop in ("ttl", "tags"):
            kind = type("Changed", (Forgetful,), {"where": where, "drop": drop})
            yield f"cache-{where}-{drop}", _caches(kind)


WRONG = dict(_variants())


def broken_rules(contract: type) -> Sequence[str]:
    names = []
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract(), name)()
            except AssertionError:
                names.append(name)
    return names


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backend_is_noticed(name: str) -> None:
    assert broken_rules(WRONG[name])


@pytest.mark.parametrize(
    "contract",
    [
        _sessions(_MemorySessions),
        _factors(TwoFactors),
        _sign_ins(SignIns),
        _passkeys(Passkeys),
        _limiters(Limits),
        _caches(Forgetful),
        _caches(KeysChanged),
    ],
    ids=["sessions", "factors", "sign-in", "passkeys", "limiter", "cache", "cache-keys"],
)
def test_the_same_backend_without_the_error_passes(contract: type) -> None:
    assert broken_rules(contract) == []
