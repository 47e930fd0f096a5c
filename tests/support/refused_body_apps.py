"""Applications of Flask and Starlette that count a body, with a larger limit for uploads, for real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mks_hardening.compose import harden_asgi, harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import RequestLimitRule, RequestLimits

if TYPE_CHECKING:
    from starlette.requests import Request

SETTINGS = HardeningSettings.from_env(environ={"MKS_ENV": "development", "MKS_MAX_BODY": "1000B"})
RULES = [RequestLimitRule("/upload/", RequestLimits(body=10_000))]

flask = Flask("refused bodies")


@flask.post("/upload/<path:name>")
@flask.post("/api/<path:name>")
def count(name: str) -> str:
    return f"{name} {len(request.get_data())}"


async def count_later(asked: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{asked.path_params['name']} {len(await asked.body())}")


starlette = Starlette(
    routes=[Route(f"/{folder}/{{name:path}}", count_later, methods=["POST"]) for folder in ("upload", "api")]
)

over_wsgi = harden_wsgi(flask, SETTINGS, request_rules=RULES)
over_asgi = harden_asgi(starlette, SETTINGS, request_rules=RULES)
