"""Applications for real servers in the ASGI tests: the whole stack around a small application and FastAPI.

Each record of a request becomes one line of JSON in the file that RECORDS names.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from mks_hardening.asgi import (
    BanList,
    BanRule,
    ConcurrencyMiddleware,
    CookiePolicy,
    RequestLimits,
    RequestLimitsMiddleware,
)
from mks_hardening.cache import MemoryCache
from mks_hardening.compose import harden_asgi
from mks_hardening.security import ConcurrencyLimiter, RateLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import CacheRule, ConcurrencyRule, RateLimitRule, RequestTimeoutRule

CHUNK = b"x" * 8192
FILE = Path(os.environ["RECORDS"]).with_name(f"file-{os.getpid()}.txt")
CONTENT = b"a whole file"
FILE.write_bytes(CONTENT)


class Records(logging.Handler):
    """Writes each record at once, so that a killed server has written all of its records."""

    def emit(self, record: logging.LogRecord) -> None:
        kept = ("path", "status", "outcome", "bytes", "client_ip", "method", "request_id", "user_id")
        said = {name: record.__dict__[name] for name in kept if name in record.__dict__}
        with Path(os.environ["RECORDS"]).open("a") as file:
            file.write(json.dumps(said) + "\n")


async def respond(send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def facts(scope: Any, receive: Any, send: Any) -> None:
    """Return what the application sees of the request."""
    said = {
        name: scope.get(name) for name in ("scheme", "client", "server", "root_path", "path", "http_version")
    }
    said["headers"] = [(name.decode(), value.decode()) for name, value in scope["headers"]]
    said["request_id"] = scope["REQUEST_ID"]
    said["extensions"] = sorted(scope.get("extensions") or ())
    said["alive"] = scope["mks_hardening.session"].alive
    await respond(send, json.dumps(said).encode(), (b"content-type", b"application/json"))


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """A stream of one second that never checks whether the client is connected."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(50):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b""})


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """A stream that ends with the server or the client."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    asked = asyncio.ensure_future(receive())
    while not asked.done() or asked.result()["type"] != "http.disconnect":
        if asked.done():
            asked = asyncio.ensure_future(receive())
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        await asyncio.sleep(0.02)


async def upload(scope: Any, receive: Any, send: Any) -> None:
    """Responds to the first part of a body before the rest has arrived."""
    total = 0
    started = False
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        total += len(message.get("body", b""))
        if not started:
            started = True
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first;", "more_body": True})
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.body", "body": b"total %d" % total})


async def size(_scope: Any, receive: Any, send: Any) -> None:
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    await respond(send, str(total).encode())


async def file(scope: Any, receive: Any, send: Any) -> None:
    """Sends a file by path, if the server supports it."""
    headers = [(b"content-length", b"%d" % len(CONTENT))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send({"type": "http.response.pathsend", "path": str(FILE)})
    else:
        await send({"type": "http.response.body", "body": CONTENT})


async def hints(scope: Any, receive: Any, send: Any) -> None:
    """Early hints before the head, and trailers after the body."""
    if "http.response.early_hint" in scope["extensions"]:
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    start = {"type": "http.response.start", "status": 200, "headers": [(b"trailer", b"checksum")]}
    await send({**start, "trailers": True})
    await send({"type": "http.response.body", "body": b"hello"})
    await send({"type": "http.response.trailers", "headers": [(b"checksum", b"42")], "more_trailers": False})


async def sign_in(scope: Any, receive: Any, send: Any) -> None:
    await scope["mks_hardening.session"].astart("alice")
    await respond(send, b"welcome")


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("broken")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that sends the user's name, and then echoes what it receives."""
    await receive()
    await send({"type": "websocket.accept"})
    user = scope["mks_hardening.session"].user_id
    await send({"type": "websocket.send", "text": f"{user} {scope['scheme']} {scope['client'][0]}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or ""})


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def late(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(1)
    await respond(send, b"late")


async def crowded(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0 if scope["query_string"] else 2)
    await respond(send, b"there was room")


async def first_come(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(1)
    await respond(send, b"your turn")


async def slow_stream(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3):
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await asyncio.sleep(0.4)
    await send({"type": "http.response.body", "body": b"end"})


async def cookies(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"", (b"set-cookie", b"theme=dark"))


async def missing(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"", status=404)


PAGES = {
    "/stream": stream,
    "/whole": stream,
    "/endless": endless,
    "/upload": upload,
    "/file": file,
    "/hints": hints,
    "/sign-in": sign_in,
    "/broken": broken,
    "/late": late,
    "/crowded": crowded,
    "/queue": ConcurrencyMiddleware(
        first_come, limiter=ConcurrencyLimiter({"queue": 1}), rules=[ConcurrencyRule("queue")], wait=30
    ),
    "/slow-stream": slow_stream,
    "/cut-stream": slow_stream,
    "/cookies": cookies,
    "/missing": missing,
    "/small-body": RequestLimitsMiddleware(size, limits=RequestLimits(body=1000)),
}


async def small(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["path"].startswith("/fastapi"):
        await framework(scope, receive, send)
    else:
        await PAGES.get(scope["path"], facts)(scope, receive, send)


framework = FastAPI(openapi_url=None)
numbers = itertools.count(1)


@framework.get("/fastapi/stream")
async def framework_stream() -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(50):
            yield CHUNK
            await asyncio.sleep(0.02)

    return StreamingResponse(parts())


@framework.get("/fastapi/cached")
async def framework_cached() -> StreamingResponse:
    number = next(numbers)

    async def parts() -> Any:
        for _ in range(20):
            yield CHUNK
            await asyncio.sleep(0.02)
        yield b"end of %d" % number

    return StreamingResponse(parts())


@framework.get("/fastapi/late")
def framework_late() -> str:
    time.sleep(2)
    return "late"


@framework.post("/fastapi/upload")
async def framework_upload(request: Request) -> str:
    return f"total {sum([len(part) async for part in request.stream()])}"


@framework.get("/fastapi/broken")
async def framework_broken() -> None:
    raise RuntimeError("broken")


logger = logging.getLogger("asgi_server_apps")
logger.propagate = False
logger.setLevel(logging.INFO)
logger.addHandler(Records())
settings = HardeningSettings.from_env(
    environ={"MKS_ALLOWED_HOSTS": "www.example.com", "MKS_TRUSTED_PROXIES": "127.0.0.1", "MKS_ENV": "test"}
)
application = harden_asgi(
    small,
    settings,
    limiter=RateLimiter({"limited": "3 per hour"}),
    rate_limits=[RateLimitRule("limited", path="/limited")],
    csrf_exempt_paths=["/upload", "/fastapi/upload", "/small-body"],
    logger=logger,
    cache=MemoryCache(),
    cache_rules=[CacheRule("/fastapi/cached", ttl=600)],
    timeout_rules=[
        RequestTimeoutRule(["/late", "/slow-stream", "/fastapi/late"], 0.5),
        RequestTimeoutRule("/cut-stream", 0.5, whole_response=True),
    ],
    concurrency_limiter=ConcurrencyLimiter({"crowded": 1}),
    concurrency_rules=[ConcurrencyRule("crowded", path="/crowded")],
    concurrency_wait=0.2,
    cookie_policy=CookiePolicy(),
    bans=BanList([BanRule("probing", strikes=3, when={404})]),
)
