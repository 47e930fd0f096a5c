import importlib
import json
from io import StringIO

import structlog

from mks_hardening.logging import bound


def facts(name):
    importlib.import_module(name)  # configures structlog

    def line(*arguments, method="info", **fields):
        written = StringIO()
        logger = structlog.wrap_logger(structlog.PrintLogger(written))
        try:
            getattr(logger, method)(*arguments, **fields)
        except ValueError as error:
            return {"event": f"no line, {type(error).__name__}"}
        return {"message": "", **json.loads(written.getvalue())}

    def text(fields):
        return fields.get("event") or fields["message"]

    plain = line("paid", amount=1200, items=["rebar"])
    yield "the message", text(plain)
    yield "its fields", f"{plain['amount']} {plain['items']}"
    with structlog.contextvars.bound_contextvars(request_id="3f9c"):
        yield "context of structlog", line("paid")["request_id"]
    yield "level and time are there", sorted({"level", "timestamp"} & plain.keys())
    try:
        raise ValueError("amount")  # noqa: TRY301 - the shortest way to a traceback
    except ValueError:
        failed = line("failed", method="exception")
    first = failed["exception"][0] if isinstance(failed["exception"], list) else failed["exception"]
    yield "the exception is", first.get("exc_type") or first["type"]
    yield "the text of the exception", first.get("exc_value") or first["message"]
    yield "the name of the level", plain["level"]
    with bound(user_id="tanaka"):
        yield "context of this package", line("paid").get("user_id")
    yield "a field named password", line("paid", password="hunter2")["password"]
    yield "a password in the message", text(line("retry with password=hunter2"))
    yield "an object", line("paid", site=object())["site"][:7]
    circle = {}
    circle["self"] = circle
    yield "a circle", text(line("state", state=circle))
    yield "10 MB of text", len(text(line("x" * 10_000_000))) < 100_000


old_facts, new_facts = (
    [*facts("before")],
    [*facts("after")],
)  # one after the other: structlog has one configuration
for (what, old), (_, new) in zip(old_facts, new_facts, strict=True):
    print(f"{what}: {old} | {new}")
