# uvicorn uvicorn_app:application    (or uvicorn.run(application, log_config=dict_config("knowledge")))
from typing import Any

from mks_hardening.logging import setup_logging

logger = setup_logging("knowledge")  # uvicorn has set up its own loggers by now: they are taken over


async def application(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        logger.warning("signed in with password=%s", "hunter2")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
