"""The application that the other examples start."""

import logging

from mks_hardening.settings import HardeningSettings

settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})


def app(_environ, start_response):
    logging.getLogger("knowledge").warning("signed in with password=%s", "hunter2")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


async def asgi_app(scope, _receive, send):
    if scope["type"] == "http":
        logging.getLogger("knowledge").warning("signed in with password=%s", "hunter2")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
