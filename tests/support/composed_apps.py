"""The stacks of ``harden_asgi`` and ``harden_wsgi``, configured from the environment, for real servers.

COMPOSED_ORIGIN names the origin whose pages may send credentials, COMPOSED_CLIENTS a file of ``ClientRules``.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from mks_hardening.compose import ban_list, harden_asgi, harden_wsgi, rate_limiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import BanRule, ClientRules, CORSPolicy, RateLimitRule

settings = HardeningSettings.from_env()
options: dict[str, Any] = {
    "bans": ban_list(settings, [BanRule("sweep", strikes=6, within=60, when={404})]),
    "limiter": rate_limiter(settings, {"five": "5 per hour"}),
    "rate_limits": [RateLimitRule("five", path="/limited")],
    "public_paths": ["/sign-in", "/page"],
}
if origin := os.environ.get("COMPOSED_ORIGIN"):
    options["cors_policy"] = CORSPolicy(
        [origin], credentials=True, methods=["GET", "PUT"], headers=["x-shop"], expose=["retry-after"]
    )
if clients := os.environ.get("COMPOSED_CLIENTS"):
    options["client_rules"] = ClientRules(file=clients, check_interval=0.1)


cancelled: list[str] = []


async def reply(send: Any, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def views(scope: Any, receive: Any, send: Any) -> None:
    session = scope["mks_hardening.session"]
    status = 200
    match scope["path"].split("/"):
        case ["", "sign-in", user]:
            await session.astart(user)
        case ["", "rotate"]:
            await session.arotate()
        case ["", "sign-out"]:
            await session.aend()
        case ["", "missing"]:
            status = 404
        case ["", "upload"]:
            while (await receive()).get("more_body"):
                pass
        case ["", "page"]:
            await reply(send, 200, b"<!doctype html><title>page</title>", b"text/html")
            return
        case _:
            pass
    facts = {"user": session.user_id, "pid": os.getpid(), "method": scope["method"]}
    facts["cancelled"] = len(cancelled)
    await reply(send, status, json.dumps(facts).encode())


def cancelling(app: Any) -> Any:
    """Cancel a request whose client disconnects, as some servers and middleware do."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        messages: asyncio.Queue[Any] = asyncio.Queue()
        request = asyncio.ensure_future(app(scope, messages.get, send))

        async def listen() -> None:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    request.cancel()
                    return
                await messages.put(message)

        listener = asyncio.ensure_future(listen())
        await asyncio.wait({request})
        listener.cancel()
        if request.cancelled():
            cancelled.append(scope["path"])
        else:
            request.result()

    return outer


def wsgi_views(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"user": null}']


application = cancelling(harden_asgi(views, settings, **options))
wsgi_application = harden_wsgi(wsgi_views, settings, **options)
