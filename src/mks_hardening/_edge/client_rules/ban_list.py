"""Temporary bans of clients, in the memory of one process or shared through Redis."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from datetime import timedelta
from heapq import nsmallest
from threading import RLock
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.checks import (
    boolean,
    instance,
    instances,
    namespace_of,
    offers,
    strings,
    text_of,
    whole_number,
)
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.hooks import remove_observer
from mks_hardening._core.memo import Memo
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.origin.network_addresses import client_key, parse_address, parse_network
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread, until_collected
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening._edge.client_rules.ban_rule import LONGEST_BAN, BanRule
from mks_hardening._edge.client_rules.banned_client import banned_client, ipv6_prefix_of
from mks_hardening._edge.client_rules.network_set import NetworkSet
from mks_hardening._edge.client_rules.strike_counter import StrikeCounter
from mks_hardening.events import RequestRefused, SignInEvent
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._edge.client_rules.redis_bans import BanState, RedisBans
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["Ban", "BanList"]

PRIVATE_NETWORKS: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fe80::/10",
)
"""RFC 1918, 3927, 6598, 4193 and 4291: in front of a web server, these are proxies, balancers and probes."""
_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

_INTERVAL: Final = 0.25
"""Seconds between two exchanges with Redis."""
_MOST_WAITING: Final = 10_000
_AT_ONCE: Final = 200
_MOST_WARNED: Final = 100

_logger: Final = logging.getLogger("mks_hardening.client_rules")


class Ban(NamedTuple):
    """A ban that is in force.

    Attributes:
        client: IPv4 address or IPv6 network.
        reason: name of the rule, or the reason given to ``BanList.ban``.
        seconds_left: seconds until it ends.
    """

    client: str
    reason: str
    seconds_left: float


class _Active(NamedTuple):
    ends_at: float
    reason: str


class BanList(Closing):
    """Temporary bans of clients after offences, for ``ClientRulesMiddleware``.

    A client is an IPv4 address or an IPv6 /64. Loopback addresses, trusted proxies, the networks in ``never`` and
    requests without an address are never banned, and no ban is permanent. Each further ban of a rule is longer,
    until the client was not banned for a while.

    With Redis, all processes share offences and bans. Requests are judged by the memory of the process alone and
    never wait: a background thread exchanges offences and bans with Redis four times a second. While Redis is
    unavailable, bans stay in force, and this process counts the offences that it sees itself; what it has banned is
    stored when Redis is back.

    Every ban is logged as a warning by the logger ``mks_hardening.client_rules``.

    Args:
        rules: the rules; without any, only ``ban`` bans.
        store: ``None`` for the memory of this process, or a Redis URL or client.
        never: addresses and networks that are never banned, beside loopback addresses and trusted proxies; by
            default the private networks, since a proxy that was not declared would be banned in place of its users.
        trust: the trusted proxies, which are never banned.
        ipv6_prefix: length of the IPv6 networks that count as one client, 32 to 64.
        max_bans: beyond this number of bans, those that end soonest are dropped; as many offenders are remembered.
        namespace: prefix of all keys in Redis.
        store_budget: seconds that one call may take.
        allow_plaintext: whether unencrypted connections to other machines are allowed.
        clock: source of time.

    Raises:
        ConfigurationError: a value has the wrong type, a network is malformed, or two rules have one name.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        rules: Iterable[BanRule] = (),
        *,
        store: str | RedisLike | RedisClient | None = None,
        never: Iterable[str] = PRIVATE_NETWORKS,
        trust: ProxyTrust | None = None,
        ipv6_prefix: int = 64,
        max_bans: int = 10_000,
        namespace: str = "mks",
        store_budget: float = STORE_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.rules: tuple[BanRule, ...] = instances(rules, BanRule, parameter="rules")
        self._by_name = {rule.name: rule for rule in self.rules}
        if len(self._by_name) != len(self.rules):
            raise ConfigurationError("rules: two rules have one name", parameter="rules")
        self._response_rules = tuple(rule for rule in self.rules if rule.judges_responses)
        self._event_rules: dict[str, list[BanRule]] = {}
        for rule in self.rules:
            for event in rule.events:
                self._event_rules.setdefault(event, []).append(rule)
        self._ipv6_prefix = ipv6_prefix_of(ipv6_prefix)
        self._never = _never(never, trust)
        self._clients: Memo[str, str] = Memo(self._client_of)
        self._max_bans = whole_number(max_bans, parameter="max_bans", minimum=1, maximum=1_000_000)
        self._monotonic = given_clock(clock).monotonic
        self._bans: dict[str, _Active] = {}
        self._strikes = StrikeCounter(max_clients=self._max_bans)
        self._waiting: deque[tuple[str, BanRule]] = deque(maxlen=_MOST_WAITING)
        self._unsent: dict[str, _Active | None] = {}
        self._changes = 0
        self._known = ("", "")
        self._warned: set[str] = set()
        self._closed = False
        self._outage = OutageLog(
            _logger,
            began="Redis of the bans is unavailable; this process continues with the bans that it knows: %s",
            ended="Redis of the bans is available again",
        )
        self._redis: RedisBans | None = None
        self._client: RedisClient | None = None
        self._thread: IntervalThread | None = None
        # Checked for memory too: an error must show up in development, not only in production.
        namespace_of(namespace)
        seconds(store_budget, parameter="store_budget", allow_zero=False)
        boolean(allow_plaintext, parameter="allow_plaintext")
        if store is not None:
            self._connect(store, namespace=namespace, budget=store_budget, allow_plaintext=allow_plaintext)
        self.reset_after_fork()
        register_after_fork(self)

    def _connect(
        self,
        store: str | RedisLike | RedisClient,
        *,
        namespace: str,
        budget: float,
        allow_plaintext: bool,
    ) -> None:
        # Imported here, so that an application without Redis does not load the client.
        from mks_hardening._core.backend.redis_client import RedisClient
        from mks_hardening._edge.client_rules.redis_bans import RedisBans

        if not isinstance(store, (str, RedisClient)):
            offers(store, "execute_command", parameter="store", kind="a Redis URL or client")
        self._client = RedisClient(store, name="bans", store_budget=budget, allow_plaintext=allow_plaintext)
        self._redis = RedisBans(self._client, namespace=namespace, max_bans=self._max_bans)
        self._thread = IntervalThread(until_collected(self._exchange), every=_INTERVAL, name="mks-bans")

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child; the parent sends its own offences and bans."""
        self._lock = RLock()
        self._waiting.clear()

    # --- the path of a request: no input or output

    def is_banned(self, client_ip: str) -> bool:
        """Return whether a client is banned; this is a dictionary look-up."""
        if self._thread is not None:
            self._thread.start()
        ban = self._bans.get(self._clients[client_ip])
        return ban is not None and ban.ends_at > self._monotonic()

    @property
    def judges_responses(self) -> bool:
        """Whether a rule counts responses."""
        return bool(self._response_rules)

    @property
    def judges_events(self) -> bool:
        """Whether a rule counts events."""
        return bool(self._event_rules)

    def observe_response(self, client_ip: str, path: str, status: int) -> None:
        """Count a response as an offence for every rule that it matches; never blocks."""
        for rule in self._response_rules:
            if rule.is_offence(path, status):
                self._note(client_ip, rule)

    def observe(self, event: object) -> None:
        """Count an event for the rules that name it; pass this method to ``add_observer``. It never waits."""
        if type(event) is RequestRefused:
            name, client = f"RequestRefused.{event.wrapper}", event.client_ip
        elif type(event) is SignInEvent:
            name, client = f"SignInEvent.{event.change}", event.client
        else:
            return
        for rule in self._event_rules.get(name, ()) if client else ():
            self._note(client, rule)

    def _note(self, client_ip: str, rule: BanRule) -> None:
        client = self._clients[client_ip]
        if not client:
            self._warn_of_proxy(client_ip, rule)
        elif self._thread is None:
            self._judge(client, rule, 1)
        elif not self.is_banned(client_ip):
            self._waiting.append((client, rule))
            self._thread.start()

    # --- offences and bans

    def strike(self, client_ip: str, rule: str) -> bool:
        """Count an offence; return whether the client is banned now.

        Raises:
            ConfigurationError: the list has no such rule.
        """
        return run(self._strike(client_ip, rule))

    async def astrike(self, client_ip: str, rule: str) -> bool:
        """``strike`` for asyncio."""
        return await arun(self._strike(client_ip, rule))

    def ban(self, client: str, duration: float | timedelta, *, reason: str = "manual") -> None:
        """Ban a client for a time. A ban that lasts longer stays.

        Args:
            client: IPv4 or IPv6 address, or an IPv6 network of one client.
            duration: seconds, 30 days at most.
            reason: for ``bans`` and the log.

        Raises:
            ConfigurationError: ``client`` is not one client or is never banned, or a value is out of range.
        """
        run(self._ban(client, duration, reason))

    async def aban(self, client: str, duration: float | timedelta, *, reason: str = "manual") -> None:
        """``ban`` for asyncio."""
        await arun(self._ban(client, duration, reason))

    def lift(self, client: str) -> bool:
        """Lift the ban of a client and forget its offences; return whether it was banned.

        A process that has banned it while Redis was unavailable may store the ban once more when Redis is back.

        Raises:
            ConfigurationError: ``client`` is not one client.
        """
        return run(self._lift(client))

    async def alift(self, client: str) -> bool:
        """``lift`` for asyncio."""
        return await arun(self._lift(client))

    def bans(self) -> list[Ban]:
        """Return the bans in force, those that end last first; during an outage of Redis, those known here."""
        return run(self._list())

    async def abans(self) -> list[Ban]:
        """``bans`` for asyncio."""
        return await arun(self._list())

    def close(self) -> None:
        """Send what is waiting, and close the connections; may be called twice. A given client stays open.

        A closed list observes no events.
        """
        remove_observer(self.observe)
        if self._client is not None and not self._closed:
            self._exchange()
            self._closed = True  # before the connections: the background thread may be in an exchange
            self._client.close()

    async def aclose(self) -> None:
        """``close`` for asyncio."""
        remove_observer(self.observe)
        if self._client is not None and not self._closed:
            import asyncio

            await asyncio.to_thread(self._exchange)
            self._closed = True
            await self._client.aclose()

    # --- operations

    def _strike(self, client_ip: str, name: str) -> Op[bool]:
        rule = self._by_name.get(name)
        if rule is None:
            raise ConfigurationError(f"rule {name!r} is unknown", parameter="rule")
        client = self._clients[text_of(client_ip, parameter="client_ip")]
        if not client:
            self._warn_of_proxy(client_ip, rule)
            return False
        if self._redis is not None:
            try:
                (length,) = yield from self._redis.strike([(client, rule, 1)])
            except BackendUnavailableError as error:
                self._outage.failed(error)
            else:
                self._outage.succeeded()
                self._enter_struck(client, rule, length)
                return bool(length)
        self._judge(client, rule, 1)
        return self.is_banned(client_ip)

    def _ban(self, client: str, duration: float | timedelta, reason: str) -> Op[None]:
        key = banned_client(client, ipv6_prefix=self._ipv6_prefix)
        length = seconds(duration, parameter="duration", allow_zero=False)
        if length > LONGEST_BAN:
            raise ConfigurationError(
                "duration must be at most 30 days; put the client on a deny list", parameter="duration"
            )
        text_of(reason, parameter="reason", empty=False)
        if not self._clients[client]:
            raise ConfigurationError(f"client: {client!r} is never banned", parameter="client")
        with self._lock:
            self._unsent.pop(key, None)
            ban = self._enter(key, length, reason)
        yield from self._send({key: ban})

    def _lift(self, client: str) -> Op[bool]:
        key = banned_client(client, ipv6_prefix=self._ipv6_prefix)
        with self._lock:
            ban = self._bans.pop(key, None)
            self._unsent.pop(key, None)
            self._strikes.forget(key)
            self._changes += 1
        here = ban is not None and ban.ends_at > self._monotonic()
        return (yield from self._send({key: None})) or here

    def _list(self) -> Op[list[Ban]]:
        if self._redis is not None:
            try:
                found = yield from self._redis.read()
            except BackendUnavailableError as error:
                self._outage.failed(error)
            else:
                self._outage.succeeded()
                bans = [Ban(client, reason, left) for client, left, reason in found.bans or ()]
                return sorted(bans, key=_seconds_left, reverse=True)
        now = self._monotonic()
        with self._lock:
            known = list(self._bans.items())
        known_bans = [
            Ban(client, ban.reason, ban.ends_at - now) for client, ban in known if ban.ends_at > now
        ]
        return sorted(known_bans, key=_seconds_left, reverse=True)

    def _send(self, changes: dict[str, _Active | None]) -> Op[bool]:
        """Store changes; return whether one of the clients was banned there. What cannot be sent is sent later."""
        if self._redis is None:
            return False
        now = self._monotonic()
        rows = [
            (client, 0.0, "") if ban is None else (client, max(0.001, ban.ends_at - now), ban.reason)
            for client, ban in changes.items()
        ]
        try:
            banned = yield from self._redis.change(rows)
        except BackendUnavailableError as error:
            self._outage.failed(error)
            with self._lock:
                self._unsent = {**changes, **self._unsent}
            if self._thread is not None:
                self._thread.start()
            return False
        return any(banned)

    # --- the memory of this process

    def _client_of(self, client_ip: str) -> str:
        """Return the key of a client; an empty string if it is never banned."""
        address = parse_address(client_ip.partition("/")[0])  # events of sign-ins name IPv6 networks
        if address is None or address in self._never:
            return ""
        return client_key(str(address), ipv6_prefix=self._ipv6_prefix)

    def _judge(self, client: str, rule: BanRule, count: int) -> None:
        """Count offences in this process, and ban the client if there are enough of them."""
        with self._lock:
            now = self._monotonic()
            ban = self._bans.get(client)
            if ban is not None and ban.ends_at > now:
                return
            length = self._strikes.strike(client, rule, count, now=now)
            if length:
                self._enter_struck(client, rule, length)
                if self._redis is not None:
                    self._unsent[client] = _Active(now + length, rule.name)

    def _enter_struck(self, client: str, rule: BanRule, length: float) -> None:
        """Enter a ban that a rule has led to: a negative length was in force before."""
        if length:
            self._enter(client, abs(length), rule.name)
        if length > 0:
            _logger.warning("client %s is banned for %.0f s: %s", client, length, rule.name)

    def _enter(self, client: str, length: float, reason: str) -> _Active:
        now = self._monotonic()
        with self._lock:
            self._changes += 1
            known = self._bans.get(client)
            ban = _Active(now + length, reason)
            if known is not None and known.ends_at > ban.ends_at:
                return known
            self._bans[client] = ban
            if len(self._bans) > self._max_bans:
                self._drop_some(now)
            return ban

    def _drop_some(self, now: float) -> None:
        bans = {client: ban for client, ban in self._bans.items() if ban.ends_at > now}
        surplus = len(bans) - self._max_bans
        if surplus > 0:
            # More than necessary, so that this does not happen with every further ban.
            for client in nsmallest(
                surplus + self._max_bans // 16, bans, key=lambda client: bans[client].ends_at
            ):
                del bans[client]
        self._bans = bans

    def _warn_of_proxy(self, client_ip: str, rule: BanRule) -> None:
        if client_ip in self._warned or len(self._warned) >= _MOST_WARNED:
            return
        self._warned.add(client_ip)
        _logger.warning(
            "an offence (%s) of %s is not counted: the address is never banned. If it is a proxy, declare it in "
            "ProxyTrust, so that its clients can be banned",
            rule.name,
            ascii(client_ip),
        )

    # --- the exchange with Redis, in the background thread

    def _exchange(self) -> bool:
        if self._closed:
            return False
        waiting = Counter(self._waiting.popleft() for _ in range(len(self._waiting)))
        try:
            run(self._exchange_with(waiting))
        except Exception as error:  # noqa: BLE001 - also a server that refuses the scripts must not stop the bans
            if isinstance(error, BackendUnavailableError) and error.reason == "closed":
                return False
            self._outage.failed(error)
            for (client, rule), count in waiting.items():
                self._judge(client, rule, count)
        else:
            self._outage.succeeded()
        return True

    def _exchange_with(self, waiting: Counter[tuple[str, BanRule]]) -> Op[None]:
        redis = self._redis
        if redis is None:
            return
        with self._lock:
            unsent, self._unsent = self._unsent, {}
        now = self._monotonic()
        changes = {client: ban for client, ban in unsent.items() if ban is None or ban.ends_at > now}
        while changes:
            part = {client: changes.pop(client) for client in list(changes)[:_AT_ONCE]}
            yield from self._send(part)
            if self._unsent:  # Redis is unavailable again
                with self._lock:
                    self._unsent = {**changes, **self._unsent}
                break
        while waiting:
            offences = list(waiting.items())[:_AT_ONCE]
            lengths = yield from redis.strike([(client, rule, count) for (client, rule), count in offences])
            for (offence, _), length in zip(offences, lengths, strict=True):
                del waiting[offence]
                self._enter_struck(*offence, length)
        before = self._changes
        self._learn((yield from redis.read(*self._known)), before)

    def _learn(self, state: BanState, before: int) -> None:
        """Replace the known bans by those of the server."""
        if state.bans is None:
            return
        now = self._monotonic()
        with self._lock:
            if self._changes != before:
                return  # a ban was made or lifted in between: the next exchange reads again
            if self._known[0] and state.id != self._known[0]:
                # The server has lost its data, which is no reason to lift bans.
                alive = {client: ban for client, ban in self._bans.items() if ban.ends_at > now}
                self._unsent = {**alive, **self._unsent}
                self._known = (state.id, "")
                return
            self._known = (state.id, state.number)
            self._bans = {client: _Active(now + left, reason) for client, left, reason in state.bans}

    def __repr__(self) -> str:
        return f"BanList({len(self.rules)} rules, {'memory' if self._client is None else self._client!r})"


def _never(networks: Iterable[str], trust: ProxyTrust | None) -> NetworkSet:
    listed = [*_LOOPBACK, *strings(networks, parameter="never", of="networks")]
    if trust is not None:
        proxies = instance(trust, ProxyTrust, parameter="trust").trusted_proxies
        listed += [proxy for proxy in proxies if proxy != "unix"]
    return NetworkSet(parse_network(text, parameter="never") for text in listed)


def _seconds_left(ban: Ban) -> float:
    return ban.seconds_left
