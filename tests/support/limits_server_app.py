"""Applications for the tests of limits by response: a sign-in that counts failures only, and a stream.

``asgi`` is FastAPI, ``wsgi`` is Flask; both have the same paths and share the Redis that REDIS names.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

from fastapi import Depends, FastAPI, Response
from fastapi.responses import StreamingResponse
from flask import Flask
from flask import Response as FlaskResponse

from mks_hardening.asgi import LimitedResponse
from mks_hardening.contrib import fastapi_app, flask_app
from mks_hardening.security import RateLimiter
from mks_hardening.settings import HardeningSettings

limiter = RateLimiter(
    {"sign_in": "5 per hour", "bytes": "100000 per hour"}, storage=os.environ["REDIS"], store_budget=5
)
settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
SECONDS = {200: 0.2, 401: 0.7}  # a test leaves while a 401 is on its way
CHUNK, CHUNKS = b"x" * 1000, 40


def failed(*arguments: object) -> bool:
    response = arguments[-1]
    return isinstance(response, LimitedResponse) and response.status == 401


def size(*arguments: object) -> int:
    response = arguments[-1]
    assert isinstance(response, LimitedResponse)
    return response.body_bytes


asgi = FastAPI()
fastapi_app.Hardening(asgi, settings, limiter=limiter)


@asgi.get("/sign-in/{status}", dependencies=[Depends(fastapi_app.limit("sign_in", final_cost=failed))])
async def sign_in(status: int) -> Response:
    await asyncio.sleep(SECONDS[status])
    return Response("", status)


@asgi.get("/stream", dependencies=[Depends(fastapi_app.limit("bytes", final_cost=size))])
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK
            await asyncio.sleep(0.02)

    return StreamingResponse(chunks())


wsgi = Flask(__name__)
flask_app.Hardening(wsgi, settings, limiter=limiter)


@wsgi.get("/sign-in/<int:status>")
@flask_app.limit("sign_in", final_cost=failed)
def wsgi_sign_in(status: int) -> FlaskResponse:
    time.sleep(SECONDS[status])
    return FlaskResponse("", status)


@wsgi.get("/stream")
@flask_app.limit("bytes", final_cost=size)
def wsgi_stream() -> FlaskResponse:
    def chunks() -> Iterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK
            time.sleep(0.02)

    return FlaskResponse(chunks())
