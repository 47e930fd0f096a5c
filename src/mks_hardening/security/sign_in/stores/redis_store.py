"""Sign-in store in Redis: one key with an expiry per entry, changed by one script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_operations import Pipeline, RunScript
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening.security._redis_backed import RedisStoreBase
from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisSignInStore"]

_HERE: Final = "mks_hardening.security.sign_in.stores"


class RedisSignInStore(RedisStoreBase):
    """Store challenges and tokens in Redis, shared by all processes.

    If the server loses an entry, its user has to start the sign-in again or request another mail.

    Args:
        url_or_client: a Redis URL, or a client that does not decode responses.
        namespace: prefix of the keys.
        store_budget: time limit of one store operation, in seconds.
        allow_plaintext: whether to allow an unencrypted connection to another machine.
        clock: for tests.

    Raises:
        ConfigurationError: the URL, client or namespace is invalid.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        namespace: str = "mks",
        store_budget: float = STORE_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            url_or_client,
            name="sign-in",
            namespace=namespace,
            store_budget=store_budget,
            allow_plaintext=allow_plaintext,
            clock=clock,
        )
        self._script = self._client.script(lua_source(_HERE, "lua/replace.lua"))

    @sync_method
    def load(self, key: str, /) -> Op[SignInEntry | None]:
        """Return the entry, unless it has expired."""
        found = yield Pipeline(self._client, [("GET", self._prefix + key)], idempotent=True)
        stored: bytes | None = found[0]
        if stored is None:
            return None
        version, _, data = stored.partition(b"\n")
        return SignInEntry(version.decode("ascii", "replace"), data)

    @async_method(load)
    def aload(self) -> None:
        """``load`` for asyncio."""

    @sync_method
    def replace(
        self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float
    ) -> Op[bool]:
        """Write an entry if its version is still the expected one."""
        arguments: list[object] = [expected or "", version, data, max(1, int(ttl * 1000))]
        # Idempotent because of its version, so it can be retried after a lost response: the script returns true
        # then.
        return bool((yield RunScript(self._script, [self._prefix + key], arguments, idempotent=True)))

    @async_method(replace)
    def areplace(self) -> None:
        """``replace`` for asyncio."""
