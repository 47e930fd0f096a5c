"""Base class of the Redis stores of this package."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import Pipeline, RunScript, Script
from mks_hardening._core.checks import namespace_of
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.closing import Closing
from mks_hardening._core.operations import Op
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisStoreBase"]

_PACKAGE: Final = "mks_hardening.security"
_logger: Final = logging.getLogger("mks_hardening.security")


class RedisStoreBase(Closing):
    """A store with a Redis client, a key prefix and a ``close`` method; for its parameters see the stores."""

    _NAME: ClassVar[str]
    """Name of the store in log records."""
    _KEYS: ClassVar[str]
    """Name of the store in keys."""

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        namespace: str = "mks",
        store_budget: float = STORE_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client = RedisClient(
            url_or_client,
            name=self._NAME,
            store_budget=store_budget,
            allow_plaintext=allow_plaintext,
            clock=clock,
        )
        self._scripts: dict[str, Script] = {}
        self._settings_checked = False
        self._prefix = f"{namespace_of(namespace)}:{self._KEYS}:"

    def ping(self) -> bool:
        """Return whether the server responds."""
        return self._client.ping()

    def close(self) -> None:
        """Release connections; can be called more than once."""
        self._client.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self._client.aclose()

    def _load_record(self, key: str, field: str = "") -> Op[tuple[str, bytes] | None]:
        """Return version and data of a record, which is a whole key, or a field of a hash."""
        command = ("HGET", key, field) if field else ("GET", key)
        answer: list[bytes | None] = yield Pipeline(self._client, [command], idempotent=True)
        if answer[0] is None:
            return None
        version, _, data = answer[0].partition(b"\n")
        return version.decode("ascii", "replace"), data

    def _replace_record(
        self,
        key: str,
        data: bytes | None,
        expected: str | None,
        version: str,
        *,
        field: str = "",
        ttl: float = 0.0,
    ) -> Op[bool]:
        """Write or remove a record if its version is still the expected one."""
        arguments = [field, expected or "", version, data or b"", max(1, int(ttl * 1000))]
        # Data without expiry gets an idempotency token: after a lost response, another process may write before
        # the retry. Without the token the retry would fail, and a code that this call consumed would be refused
        # as replayed to everyone.
        token = secrets.token_hex(16) if field else None
        script = self._script(_PACKAGE, "replace_record")
        return bool((yield RunScript(script, [key], arguments, idempotent=True, token=token)))

    def _script(self, package: str, name: str) -> Script:
        """Return a Lua script of a package by its file name."""
        found = self._scripts.get(name)
        if found is None:
            found = self._scripts[name] = self._client.script(lua_source(package, f"lua/{name}.lua"))
        return found

    def _warn_of_loss(self, key: str) -> Op[None]:
        """Log a warning, once, if the settings of the server that stored this key risk losing it."""
        if self._settings_checked:
            return
        self._settings_checked = True
        script = self._script(_PACKAGE, "server_settings")
        try:
            answer: Sequence[bytes] = yield RunScript(script, [key], [], idempotent=True)
        except BackendUnavailableError:
            return  # the write was confirmed and must not fail because of this check
        policy, limit, append_only = (text.decode("ascii", "replace") for text in answer)
        # These keys have no expiry, so a policy ``volatile-...`` does not evict them.
        if policy.startswith("allkeys") and limit not in {"", "0"}:
            _logger.warning(
                "the Redis server of %s deletes entries when it is full (maxmemory-policy %s): set noeviction, "
                "or accounts lose their second factor",
                self._NAME,
                policy,
            )
        if append_only == "0":
            _logger.warning(
                "the Redis server of %s keeps no append-only file (appendonly no): set appendonly yes, or a crash "
                "undoes the latest changes of second factors",
                self._NAME,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r})"
