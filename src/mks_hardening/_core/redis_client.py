"""One resilient way to Redis for all areas; the one door to redis-py.

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
from mks_hardening._core.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening._core.durations import seconds
from mks_hardening._core.guard import CallGuard
from mks_hardening._core.lazy import optional
from mks_hardening._core.redis_faults import is_missing_script, reason_of
from mks_hardening._core.redis_script import Script
from mks_hardening._core.redis_url import RedisUrl, parse_redis_url
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import Clock, RedisLike

if TYPE_CHECKING:
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
        if isinstance(url_or_client, str):
            self._url = parse_redis_url(url_or_client, allow_plaintext=allow_plaintext)
            self._client: Any = _connect(self._url, budget)
        else:
            self._client = _checked_client(url_or_client)
        breaker = CircuitBreaker(name, probe=self._probe, slow_after=budget, clock=clock)
        self._guard = CallGuard(name, budget=budget, breaker=breaker, reason_of=_reason)
        self._async_clients: WeakKeyDictionary[Any, Any] | None = None

    def call(self, *command: Any, idempotent: bool = False) -> Any:
        """Send one command.

        Args:
            command: name and arguments.
            idempotent: whether sending it twice is harmless, so that it may be tried again.

        Raises:
            BackendUnavailableError: no usable answer within the budget.
        """
        return self._guarded(
            str(command[0]), lambda: self._client.execute_command(*command), idempotent=idempotent
        )

    def pipeline(self, commands: Sequence[Command], *, idempotent: bool = False) -> list[Any]:
        """Send several commands in one round trip (not atomic) and return their answers.

        Raises:
            BackendUnavailableError: no usable answer to one of them.
        """
        return self._guarded("pipeline", lambda: _run_pipeline(self._client, commands), idempotent=idempotent)

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
        if self._url is not None:
            self._client.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        import asyncio

        client = (self._async_clients or {}).pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self._url.address if self._url is not None else type(self._client).__name__
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

    def _probe(self) -> None:
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._guard.budget
        try:
            self._client.execute_command("PING")
        except Exception as error:
            raise BackendUnavailableError(
                self._guard.backend, reason_of(error) or "error", operation="PING"
            ) from error
        finally:
            call_deadline.at = None

    def _after_failure(self, reason: str) -> None:
        if reason != "readonly":
            return
        # The connections lead to a server that is no longer the primary.
        pool = getattr(self._client, "connection_pool", None)
        if self._url is not None and pool is not None:
            pool.disconnect(inuse_connections=False)

    def _async_client(self) -> Any:
        """The client of the running event loop; connections must not wander between loops."""
        import asyncio
        from weakref import WeakKeyDictionary

        if self._url is None:
            raise ConfigurationError("the async methods need a URL, not a client", parameter="url_or_client")
        if self._async_clients is None:
            self._async_clients = WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = self._async_clients[loop] = _connect_async(self._url, self._guard.budget)
        return client


def _reason(error: BaseException) -> str | None:
    return None if is_missing_script(error) else reason_of(error)


# --- the door to redis-py --------------------------------------------------------------------


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


def _common_options(url: RedisUrl, budget: float) -> dict[str, Any]:
    return {
        "username": url.username,
        "password": url.password,
        "socket_timeout": budget,
        "socket_connect_timeout": budget,
        "decode_responses": False,
        "protocol": 2,
        "health_check_interval": 0,
        "driver_info": None,
    }


def _connect(url: RedisUrl, budget: float) -> Any:
    """A synchronous client whose sockets obey the deadline of the call."""
    with optional("redis", extra="cache"):
        import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {**_common_options(url, budget), "retry": Retry(NoBackoff(), 0)}
    connection_class = _deadline_connection(url)
    if url.tls:
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": url.ca_file}
    if url.topology == "single":
        place = {"path": url.path} if url.path else {"host": url.hosts[0][0], "port": url.hosts[0][1]}
        pool = redis.ConnectionPool(
            connection_class=connection_class, db=url.database, max_connections=200, **place, **options
        )
        client: Any = redis.Redis(connection_pool=pool)
    elif url.topology == "sentinel":
        client = _sentinel(url, options)
    else:
        client = _cluster(url, options)
    if hasattr(client, "response_callbacks"):
        client.response_callbacks.clear()
    return client


def _sentinel(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis.sentinel import Sentinel

    quick = {"socket_timeout": options["socket_timeout"], "retry": options["retry"]}
    sentinel: Any = Sentinel(url.hosts, sentinel_kwargs=quick)  # type: ignore[no-untyped-call]  # redis-py
    return sentinel.master_for(url.service, db=url.database, ssl=url.tls, **options)


def _cluster(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis.cluster import ClusterNode, RedisCluster

    node: Any = ClusterNode
    nodes = [node(host, port) for host, port in url.hosts]
    return RedisCluster(startup_nodes=nodes, ssl=url.tls, **options)


def _deadline_connection(url: RedisUrl) -> type[Any]:
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

    base: Any = UnixDomainSocketConnection if url.path else SSLConnection if url.tls else Connection

    class DeadlineConnection(base):  # type: ignore[misc]  # the base is chosen by the URL
        def _connect(self) -> Any:
            left = call_deadline.remaining()
            if left is not None:
                self.socket_connect_timeout = left
            return DeadlineSocket(super()._connect())

    return DeadlineConnection


def _connect_async(url: RedisUrl, budget: float) -> Any:
    with optional("redis", extra="cache"):
        from redis import asyncio as aredis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    if url.topology != "single":
        raise ConfigurationError("asyncio knows single servers only so far", parameter="url_or_client")
    options = {**_common_options(url, budget), "retry": Retry(NoBackoff(), 0), "db": url.database}
    if url.path:
        client = aredis.Redis(unix_socket_path=url.path, **options)
    else:
        if url.tls:
            options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_ca_certs": url.ca_file}
        client = aredis.Redis(host=url.hosts[0][0], port=url.hosts[0][1], **options)
    client.response_callbacks.clear()
    return client
