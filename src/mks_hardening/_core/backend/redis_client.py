"""Resilient Redis client for the whole package.

Every call ends within its budget with a response or one typed error. Reads and idempotent writes are retried
within the budget; other commands only if they were certainly not executed. A script run with a ``token`` stores its
first result on the server, so that a retry after a lost response returns that result instead of running again.

Responses are raw (bytes, integers, lists); a client passed in by the user must not decode them either.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Literal, TypeVar
from weakref import finalize

from mks_hardening._core.backend.cluster_shards import ClusterShards, unwrap_cluster_error
from mks_hardening._core.backend.endpoint import Endpoint, EndpointLease, lease
from mks_hardening._core.backend.redis_connect import connect_push, prepare, require_redis
from mks_hardening._core.backend.redis_errors import (
    detail_of,
    is_cluster_wide,
    is_handshake_timeout,
    is_missing_script,
    is_reset,
    reason_of,
)
from mks_hardening._core.backend.redis_operations import Script
from mks_hardening._core.backend.redis_push_channel import PushChannel
from mks_hardening._core.backend.redis_types import Answer, Client, Command
from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening._core.backend.redis_user_client import target_of
from mks_hardening._core.checks import boolean
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening._core.resilience.deadline_socket import call_deadline
from mks_hardening._core.resilience.guard import CallGuard, GuardedCall
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisClient"]

T = TypeVar("T")

_POOL_PAUSE: Final = 0.002
"""Seconds between two attempts to get a free connection while all of them are in use."""


class RedisClient(Closing):
    """Commands, pipelines and scripts with a time budget, a circuit breaker and safe retries.

    Clients of one server share connections, breaker and probe (see ``endpoint``); each has its own name, budget and
    ``close()``.

    Args:
        url_or_client: a Redis URL (see ``redis_url``), another ``RedisClient``, a client of redis-py (rebuilt from
            its arguments, see ``redis_user_client``), or any object with ``execute_command``.
        name: name in errors and events.
        store_budget: maximum duration of one call in seconds; inside a request, all calls share the request's
            budget.
        allow_plaintext: whether a URL may use an unencrypted connection to another machine.
        clock: monotonic clock of the breaker.

    Raises:
        ConfigurationError: an unusable URL or client.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        name: str = "redis",
        store_budget: float = STORE_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        budget = seconds(store_budget, parameter="store_budget", allow_zero=False)
        plain = boolean(allow_plaintext, parameter="allow_plaintext")
        timer = given_clock(clock)
        self._lease = _lease(url_or_client, budget=budget, allow_plaintext=plain, clock=timer)
        endpoint = self._lease.endpoint
        self._guard = CallGuard(
            name,
            budget=budget,
            breaker=endpoint.breaker,
            reason_of=partial(_reason, endpoint),
            detail_of=partial(_detail, endpoint),
            fair_share=endpoint.fair_share,
            paced=endpoint.target is not None,
        )
        self._shards: ClusterShards | None = endpoint.shards
        # A client that is dropped without ``close()`` must not be probed for, nor keep its connections.
        finalize(self, self._lease.end).atexit = False

    def call(self, *command: object, idempotent: bool = False, node: str = "") -> Answer:
        """Send one command.

        Args:
            command: name and arguments.
            idempotent: whether sending it twice is harmless, so that it may be retried.
            node: name of the cluster node to send it to; by default the node that owns the key.

        Raises:
            BackendUnavailableError: no usable response within the budget.
        """
        send = partial(self._send_to, node) if node else self._send_one
        return self._guarded(str(command[0]), (command,), send, idempotent=idempotent)

    def pipeline(self, commands: Sequence[Command], *, idempotent: bool = False) -> list[Answer]:
        """Send several commands in one round trip (not atomic) and return their responses.

        Raises:
            BackendUnavailableError: no usable response to one of them.
        """
        return self._guarded("pipeline", commands, self._send_all, idempotent=idempotent)

    def push_channel(self) -> PushChannel:
        """Return a new connection on which the server may report changes; not for a Cluster, nor for a fake.

        Raises:
            BackendUnavailableError: no connection within the budget.
        """
        return PushChannel(self._guarded("HELLO", (), self._connect_push, idempotent=True))

    def script(self, source: str) -> Script:
        """Return a Lua script that is sent by its hash, and in full only if the server does not know it."""
        return Script(self, source)

    @property
    def budget(self) -> float:
        """Maximum duration of one call, in seconds."""
        return self._guard.budget

    def in_doubt(self) -> bool:
        """Whether a call has failed since the last response and a probe is checking the server."""
        breaker = self._guard.breaker
        return breaker.doubted and breaker.in_doubt()

    @property
    def is_probed(self) -> bool:
        """Whether a probe detects the server's recovery; a fake receives only the calls of its owner."""
        return self._lease.endpoint.target is not None

    @property
    def place(self) -> Hashable:
        """Key that is equal for clients of the same database of the same server, while one of them exists."""
        return id(self._lease.endpoint), self._lease.database

    @property
    def is_cluster(self) -> bool:
        """Whether all keys of a command must be in one hash slot."""
        return self._shards is not None

    def ping(self) -> bool:
        """Whether the server responds within the budget."""
        try:
            self.call("PING", idempotent=True)
        except BackendUnavailableError:
            return False
        return True

    async def acall(self, *command: object, idempotent: bool = False, node: str = "") -> Answer:
        """Asynchronous ``call``; a fake, which has no asynchronous methods, is called in a worker thread."""
        if self._lease.endpoint.target is None:
            return await _in_thread(partial(self.call, *command, idempotent=idempotent, node=node))
        send = partial(self._asend_to, node) if node else self._asend_one
        return await self._aguarded(str(command[0]), (command,), send, idempotent=idempotent)

    async def apipeline(self, commands: Sequence[Command], *, idempotent: bool = False) -> list[Answer]:
        """Asynchronous ``pipeline``; see ``acall``."""
        if self._lease.endpoint.target is None:
            return await _in_thread(partial(self.pipeline, commands, idempotent=idempotent))
        return await self._aguarded("pipeline", commands, self._asend_all, idempotent=idempotent)

    def close(self) -> None:
        """Release the connections; idempotent. A client that was passed in stays open."""
        self._guard.closed = True
        self._lease.end()

    async def aclose(self) -> None:
        """Asynchronous ``close``, including the connections of the running event loop."""
        self._guard.closed = True
        await self._lease.aend()

    def __repr__(self) -> str:
        return f"RedisClient({self._guard.backend!r}, {self._lease.endpoint.address})"

    # --- one call, guarded -------------------------------------------------------------------

    def _client(self) -> Client:
        lease = self._lease
        made = lease.endpoint.clients.get(lease.database)
        return lease.client() if made is None else made  # the first call creates it

    def _send_one(self, commands: Sequence[Command]) -> Answer:
        return self._client().execute_command(*commands[0])

    def _send_to(self, node: str, commands: Sequence[Command]) -> Answer:
        client = self._client()
        return client.execute_command(*commands[0], target_nodes=_node(client, node))

    def _send_all(self, commands: Sequence[Command]) -> list[Answer]:
        client = self._client()
        if not hasattr(client, "pipeline"):
            return [client.execute_command(*command) for command in commands]
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Answer] = pipe.execute()
        return answers

    def _connect_push(self, _commands: Sequence[Command]) -> Client:
        return connect_push(self._client())

    async def _asend_one(self, commands: Sequence[Command]) -> Answer:
        answer = self._lease.async_client().execute_command(*commands[0])
        return await answer if hasattr(answer, "__await__") else answer  # synchronous fakes return the value

    async def _asend_to(self, node: str, commands: Sequence[Command]) -> Answer:
        client = self._lease.async_client()
        return await client.execute_command(*commands[0], target_nodes=_node(client, node))

    async def _asend_all(self, commands: Sequence[Command]) -> list[Answer]:
        if self._lease.endpoint.target is None:
            return [await self._asend_one((command,)) for command in commands]
        pipe = self._lease.async_client().pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Answer] = await pipe.execute()
        return answers

    def _guarded(
        self,
        operation: str,
        commands: Sequence[Command],
        send: Callable[[Sequence[Command]], T],
        *,
        idempotent: bool,
    ) -> T:
        shards = self._shards
        shard = None if shards is None else shards.finder(self._lease.made, commands, operation)
        call = self._guard.begin(operation, idempotent=idempotent, own_time=call_deadline, shard=shard)
        try:
            while True:
                try:
                    answer = send(commands)
                except Exception as error:  # noqa: BLE001 - raised again unless the call may be repeated
                    commands, then = self._next_attempt(call, commands, error)
                    if then == "wait":
                        time.sleep(_POOL_PAUSE)
                        call_deadline.waited(_POOL_PAUSE)
                    elif then == "reload":
                        with suppress(Exception):  # the next attempt shows
                            self._client().nodes_manager.initialize()
                else:
                    call.succeeded()
                    self._lease.endpoint.answered = True
                    return answer
        finally:
            call.end()

    async def _aguarded(
        self,
        operation: str,
        commands: Sequence[Command],
        send: Callable[[Sequence[Command]], Awaitable[T]],
        *,
        idempotent: bool,
    ) -> T:
        import asyncio

        from mks_hardening._core.resilience.loop_time import LoopAwareTimeout, loop_time

        time_of_loop, shards = loop_time(), self._shards
        shard = None if shards is None else shards.finder(self._lease.async_client, commands, operation)
        call = self._guard.begin(operation, idempotent=idempotent, own_time=time_of_loop, shard=shard)
        try:
            while True:
                try:
                    async with LoopAwareTimeout(time_of_loop, call.deadline - SYSTEM_CLOCK.monotonic()):
                        answer = await send(commands)
                except Exception as error:  # noqa: BLE001 - raised again unless the call may be repeated
                    commands, then = self._next_attempt(call, commands, error)
                    if then == "wait":
                        await asyncio.sleep(_POOL_PAUSE)
                    elif then == "reload":
                        with suppress(Exception):  # the next attempt shows
                            await self._lease.async_client().nodes_manager.initialize()
                else:
                    call.succeeded()
                    self._lease.endpoint.answered = True
                    return answer
        finally:
            call.end()

    def _next_attempt(
        self, call: GuardedCall, commands: Sequence[Command], raised: Exception
    ) -> tuple[Sequence[Command], Literal["", "wait", "reload"]]:
        """Return the commands to send again, and what to do first: wait for a connection, or reload the slot map.

        Raises:
            BackendUnavailableError: the call may not be repeated.
            Exception: ``raised`` itself, if the server did not cause it or does not know the script.
        """
        if isinstance(raised, UnicodeEncodeError):
            return _encoded(commands, raised), ""
        shards, endpoint = self._shards, self._lease.endpoint
        error = raised if shards is None else unwrap_cluster_error(raised)
        if is_missing_script(error):
            call.succeeded()
            raise raised
        if shards is None and reason_of(error) == "moved":
            endpoint.report_cluster()
        reason = call.failed(error, whole=is_cluster_wide(error))
        if reason == "readonly":
            endpoint.forget_connections()
        if reason == "pool":
            return commands, "wait"
        if shards is not None and shards.refresh_due(reason, stumbled=error is not raised):
            return commands, "reload"
        return commands, ""


def _lease(
    url_or_client: str | RedisLike | RedisClient, *, budget: float, allow_plaintext: bool, clock: Clock
) -> EndpointLease:
    if isinstance(url_or_client, RedisClient):
        return url_or_client._lease.sibling(budget=budget)  # noqa: SLF001 - same module
    if isinstance(url_or_client, str):
        target = parse_redis_url(url_or_client, allow_plaintext=allow_plaintext)
        require_redis()
        prepare(target)
        return lease(target, None, budget=budget, clock=clock)
    copied = target_of(url_or_client)
    if copied is None:
        return lease(None, url_or_client, budget=budget, clock=clock)
    prepare(copied)
    return lease(copied, None, budget=budget, clock=clock)


def _reason(endpoint: Endpoint, error: BaseException) -> str | None:
    """Return the reason of an error; a TLS handshake without any response is ``tls``, not a timeout."""
    reason = reason_of(error)
    target = endpoint.target
    if (
        reason in ("timeout", "refused")
        and target
        and (target.tls or target.sentinel_tls)
        and not endpoint.answered
        and is_handshake_timeout(error)
    ):
        return "tls"
    return reason


def _detail(endpoint: Endpoint, error: BaseException) -> str:
    """Return further details of an error for its message."""
    target = endpoint.target
    if _reason(endpoint, error) == "tls" and is_handshake_timeout(error):
        return (
            "no response to the TLS handshake; if the server does not use TLS, the URL must begin with redis"
        )
    if target and not (target.tls or target.path or endpoint.answered) and is_reset(error):
        return "closed before the first response; if the server expects TLS, the URL must begin with rediss"
    return detail_of(error)


def _node(client: Client, name: str) -> Client:
    node = client.get_node(node_name=name)
    if node is None:
        raise ConnectionError(f"{name} has left the cluster")
    return node


def _encoded(commands: Sequence[Command], error: UnicodeEncodeError) -> list[Command]:
    """Return the commands with strings that cannot be encoded as UTF-8 (lone surrogates) converted to bytes.

    Nothing has been sent at this point: a client packs all commands before it sends the first. Lone surrogates come
    from headers or paths, for example.

    Raises:
        UnicodeEncodeError: the given error, if none of the strings caused it.
    """
    if all(item.isascii() for command in commands for item in command if isinstance(item, str)):
        raise error
    return [
        [
            item.encode("utf-8", "surrogatepass") if isinstance(item, str) and number else item
            for number, item in enumerate(command)
        ]
        for command in commands
    ]


async def _in_thread(call: Callable[[], T]) -> T:
    import asyncio

    return await asyncio.to_thread(call)
