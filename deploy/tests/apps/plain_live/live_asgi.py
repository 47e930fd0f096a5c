"""A FastAPI application that reads no forwarding field, with a WebSocket and server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from mks_hardening.asgi import TrustedProxyMiddleware
from mks_hardening.wsgi import ProxyTrust

app = FastAPI()
more = asyncio.Event()


@app.get("/who", response_class=PlainTextResponse)
async def who(request: Request) -> str:
    assert request.client is not None
    return f"{request.client.host} {request.url.scheme} {request.url.netloc}"


@app.get("/quiet")
async def quiet() -> None:
    await asyncio.sleep(3600)


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None))
    assert socket.client is not None
    await socket.send_text(f"{socket.client.host} {socket.url.scheme} {socket.url.netloc}")
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


@app.api_route("/events", methods=["GET", "POST"])
@app.get("/api/parts")
async def events(request: Request) -> StreamingResponse:
    more.clear()

    async def parts() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await more.wait()
        yield "data: second\n\n"

    if request.url.path == "/events":
        return StreamingResponse(parts(), media_type="text/event-stream")
    return StreamingResponse(parts(), media_type="text/plain")


@app.post("/more", response_class=PlainTextResponse)
async def go_on() -> str:
    more.set()
    return "on"


@app.get("/readyz", response_class=PlainTextResponse)
async def readyz() -> str:
    return "ok"


fixed = ProxyHeadersMiddleware(app, trusted_hosts="*")
trusting = TrustedProxyMiddleware(app, trust=ProxyTrust(["unix"]))
