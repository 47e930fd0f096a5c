"""Notes: a small FastAPI application that somebody else wrote."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.responses import PlainTextResponse, RedirectResponse

started = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    started.append(os.environ["NOTES_API_KEY"][:1])
    yield
    started.clear()


app = FastAPI(lifespan=lifespan)
admin = FastAPI()
app.mount("/admin", admin)


@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return "notes"


@app.post("/notes")
async def add(text: Annotated[str, Form()]) -> RedirectResponse:
    return RedirectResponse(f"/notes/{text}", status_code=303)


@app.get("/notes/{text}", response_class=PlainTextResponse)
async def note(text: str) -> str:
    return f"note {text}"


@app.get("/slow", response_class=PlainTextResponse)
async def slow() -> str:
    await asyncio.sleep(0.02)
    return "slept"


@app.get("/who", response_class=PlainTextResponse)
async def who(request: Request) -> str:
    return f"{request.headers['x-forwarded-for']} {request.headers['x-forwarded-proto']}"


@app.get("/livez", response_class=PlainTextResponse)
async def livez() -> str:
    return "ok"


@app.get("/readyz", response_class=PlainTextResponse)
async def readyz() -> str:
    return "ok" if started else ""
