"""Never run: what type checkers see of the request record and of sessions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from mks_hardening.protocols import AsyncSessionStore, SessionRecord, SessionStore
from mks_hardening.wsgi import (
    MemorySessionStore,
    ProxyTrust,
    RedisSessionStore,
    RequestLoggingMiddleware,
    SessionCookie,
    SessionHandle,
    SessionManager,
    SessionTimeoutMiddleware,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An application of the standard library's types alone."""
    handle: SessionHandle = environ["mks_hardening.session"]
    handle.start("alice", data={"second_factor": True})
    assert_type(handle.user_id, str | None)
    assert_type(handle.data, Mapping[str, Any])
    assert_type(handle.expires_in, float | None)
    assert_type(handle.csrf_token, str | None)
    assert_type(handle.rotate(), bool)
    assert_type(handle.refresh(), float)
    assert_type(handle.update_data(name=1), bool)
    assert_type(handle.end_others(), int)
    assert_type(handle.end(), bool)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


# --- both stores are stores

memory: SessionStore = MemorySessionStore(max_entries=10)
stores: list[SessionStore] = [memory, RedisSessionStore("redis://127.0.0.1:6379/0", namespace="n")]
twins: list[AsyncSessionStore] = [MemorySessionStore(), RedisSessionStore("redis://127.0.0.1:6379/0")]


async def on_a_loop(handle: SessionHandle, manager: SessionManager) -> None:
    """The twins."""
    await handle.astart("alice", data={"second_factor": True})
    assert_type(await handle.arotate(), bool)
    assert_type(await handle.arefresh(), float)
    assert_type(await handle.aupdate_data(name=1), bool)
    assert_type(await handle.aend_others(), int)
    assert_type(await handle.aend(), bool)
    assert_type(await manager.asessions("alice"), Sequence[SessionRecord])
    assert_type(await manager.aend_user("alice"), int)


# --- each wrapper takes an application and is one


def on_expired(record: SessionRecord, reason: str) -> None:
    """What may be told of an end."""
    logging.getLogger(record.user_id).info(reason)


wrapped: WSGIApplication = SessionTimeoutMiddleware(
    plain,
    store=memory,
    idle_timeout=timedelta(minutes=30),
    absolute_timeout=28800,
    cookie=SessionCookie(name="sid", same_site="Strict"),
    max_sessions=5,
    clear_site_data=["cache", "storage"],
    on_expired=on_expired,
)
wrapped = RequestLoggingMiddleware(wrapped, logger=logging.getLogger("x"), trust=ProxyTrust(["10.0.0.0/8"]))

# --- the manager

manager = SessionManager(memory)
assert_type(manager.sessions("alice"), Sequence[SessionRecord])
assert_type(manager.end(manager.sessions("alice")[0]), bool)
assert_type(manager.end_user("alice"), int)

# --- what must not pass

SessionCookie(same_site="lax")  # type: ignore[arg-type]
SessionTimeoutMiddleware(plain, memory)  # type: ignore[call-arg]
SessionTimeoutMiddleware(plain, store=memory, clear_site_data=["cash"])  # type: ignore[list-item]
