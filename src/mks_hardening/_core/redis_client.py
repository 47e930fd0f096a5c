"""One resilient way to Redis for all areas.

Every call ends within its budget with an answer or one typed error. Reads and idempotent writes are tried again
inside the budget; anything else only when it certainly was not sent. A script run with a ``token`` remembers its
first answer on the server, so that a retry after a lost reply repeats the answer and not the work.

Answers are raw (bytes, integers, lists); a client handed in by the user must not decode them either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mks_hardening._core.breaker import CircuitBreaker
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.deadline_socket import call_deadline
from mks_hardening._core.durations import seconds
from mks_hardening._core.guard import CallGuard
from mks_hardening._core.redis_connect import close_async, connect, connect_async, require_redis
from mks_hardening._core.redis_faults import is_missing_script, reason_of
from mks_hardening._core.redis_script import Script
from mks_hardening._core.redis_url import RedisUrl, parse_redis_url
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import Clock, RedisLike

if TYPE_CHECKING:
    import asyncio
    from weakref import WeakKeyDictionary

__all__ = ["RedisClient"]

T = TypeVar("T")
Command = Sequence[Any]


class RedisClient:
    """Commands, pipelines and scripts with a budget, a breaker and honest retries.

    Args:
        url_or_client: a Redis URL (see ``redis_url``), or any object with ``execute_command``.
        name: what errors, events and logs call it.
        store_budget: seconds that one call may take at most; inside a request all calls together share the
            request's budget.
        allow_plaintext: whether clear text may leave this machine.
        clock: monotonic clock of the breaker.

    Raises:
        ConfigurationError: an unusable URL, or a client that decodes its answers.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike,
        *,
        name: str = "redis",
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        budget = seconds(store_budget, parameter="store_budget", allow_zero=False)
        self._url: RedisUrl | None = None
        self._made: Any = None
        if isinstance(url_or_client, str):
            self._url = parse_redis_url(url_or_client, allow_plaintext=allow_plaintext)
            require_redis()
        else:
            self._made = _checked_client(url_or_client)
        breaker = CircuitBreaker(
            name, probe=self._probe, slow_after=budget, recovery_timeout=self._probe_interval(), clock=clock
        )
        self._guard = CallGuard(name, budget=budget, breaker=breaker, reason_of=_reason)
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] | None = None

    def call(self, *command: Any, idempotent: bool = False) -> Any:
        """Send one command.

        Args:
            command: name and arguments.
            idempotent: whether sending it twice is harmless, so that it may be tried again.

        Raises:
            BackendUnavailableError: no usable answer within the budget.
        """
        return self._guarded(
            str(command[0]), lambda: self._client().execute_command(*command), idempotent=idempotent
        )

    def pipeline(self, commands: Sequence[Command], *, idempotent: bool = False) -> list[Any]:
        """Send several commands in one round trip (not atomic) and return their answers.

        Raises:
            BackendUnavailableError: no usable answer to one of them.
        """
        return self._guarded(
            "pipeline", lambda: _run_pipeline(self._client(), commands), idempotent=idempotent
        )

    def script(self, source: str) -> Script:
        """A Lua script, sent by its hash and in full only where the server does not know it."""
        return Script(self, source)

    def ping(self) -> bool:
        """Whether the server answers within the budget."""
        try:
            self.call("PING", idempotent=True)
        except BackendUnavailableError:
            return False
        return True

    async def acall(self, *command: Any, idempotent: bool = False) -> Any:
        """``call`` for asyncio."""
        client = self._async_client()
        return await self._aguarded(
            str(command[0]), lambda: client.execute_command(*command), idempotent=idempotent
        )

    async def apipeline(self, commands: Sequence[Command], *, idempotent: bool = False) -> list[Any]:
        """``pipeline`` for asyncio."""
        client = self._async_client()

        async def run() -> list[Any]:
            pipe = client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute()
            return answers

        return await self._aguarded("pipeline", run, idempotent=idempotent)

    def close(self) -> None:
        """Give the connections back; harmless when called twice. A client handed in stays open."""
        self._guard.closed = True
        self._guard.breaker.retire()
        if self._url is not None and self._made is not None:
            self._made.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        import asyncio

        client = self._by_loop.pop(asyncio.get_running_loop(), None) if self._by_loop is not None else None
        if client is not None:
            await close_async(client)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self._url.address if self._url is not None else type(self._made).__name__
        return f"RedisClient({self._guard.backend!r}, {where})"

    # --- one call, guarded -------------------------------------------------------------------

    def _guarded(self, operation: str, send: Callable[[], T], *, idempotent: bool) -> T:
        call = self._guard.begin(operation, idempotent=idempotent)
        while True:
            call_deadline.at = call.deadline
            try:
                answer = send()
            except Exception as error:  # noqa: BLE001 - sorted by the guard; what is not Redis's comes out as it is
                self._after_failure(call.failed(error))
            else:
                call.succeeded()
                return answer
            finally:
                call_deadline.at = None

    async def _aguarded(self, operation: str, send: Callable[[], Awaitable[T]], *, idempotent: bool) -> T:
        import asyncio

        call = self._guard.begin(operation, idempotent=idempotent)
        while True:
            try:
                async with asyncio.timeout(max(0.0, call.deadline - SYSTEM_CLOCK.monotonic())):
                    answer = await send()
            except Exception as error:  # noqa: BLE001 - as in _guarded
                self._after_failure(call.failed(error))
            else:
                call.succeeded()
                return answer

    def _probe_interval(self) -> float:
        """Once a second; a group that is failing over is back within moments, and asking it is cheap."""
        return 1.0 if self._url is None or self._url.topology == "single" else 0.2

    def _probe(self) -> None:
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._guard.budget
        try:
            self._client().execute_command("PING")
        except Exception as error:
            raise BackendUnavailableError(
                self._guard.backend, reason_of(error) or "error", operation="PING"
            ) from error
        finally:
            call_deadline.at = None
            if self._guard.closed:  # while we were asking
                self.close()

    def _after_failure(self, reason: str) -> None:
        if reason != "readonly":
            return
        # The connections lead to a server that is no longer the primary.
        pool = getattr(self._made, "connection_pool", None)
        if self._url is not None and pool is not None:
            pool.disconnect(inuse_connections=False)

    def _client(self) -> Any:
        """Made at the first call, inside its deadline: a cluster client talks to the servers at once.

        Without a lock, which a fork could leave held: two threads may both make one, and one of them stays.
        """
        if self._made is None and self._url is not None:
            self._made = connect(self._url, self._guard.budget)
        return self._made

    def _async_client(self) -> Any:
        """The client of the running event loop; connections must not wander between loops."""
        import asyncio
        from weakref import WeakKeyDictionary

        if self._url is None:
            raise ConfigurationError("the async methods need a URL, not a client", parameter="url_or_client")
        if self._by_loop is None:
            self._by_loop = WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None:
            client = self._by_loop[loop] = connect_async(self._url, self._guard.budget)
        return client


def _reason(error: BaseException) -> str | None:
    return None if is_missing_script(error) else reason_of(error)


def _checked_client(client: RedisLike) -> RedisLike:
    if not callable(getattr(client, "execute_command", None)):
        raise ConfigurationError(
            f"url_or_client must be a URL or have execute_command, not {type(client).__name__}",
            parameter="url_or_client",
        )
    pool = getattr(client, "connection_pool", None)
    if getattr(pool, "connection_kwargs", {}).get("decode_responses"):
        raise ConfigurationError("the client must not decode answers", parameter="url_or_client")
    return client


def _run_pipeline(client: Any, commands: Sequence[Command]) -> list[Any]:
    if not hasattr(client, "pipeline"):
        return [client.execute_command(*command) for command in commands]
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    answers: list[Any] = pipe.execute()
    return answers
