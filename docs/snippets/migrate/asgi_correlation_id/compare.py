import logging
from contextlib import suppress
from uuid import uuid4

import after
import before

from mks_hardening.testing import call_asgi

PROXY, STRANGER = "10.0.0.7", "192.0.2.1"
records = []


class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())


logging.getLogger("mks_hardening.request").addHandler(Keep())
logging.getLogger("mks_hardening.request").setLevel("INFO")


def ask(app, path="/", address=PROXY, user="tanaka", websocket=None, **headers):
    async def quiet(scope, receive, send):
        with suppress(RuntimeError):  # Starlette passes it on to the server after the response
            await app(scope, receive, send)

    fields = {
        "Host": "www.example.com",
        "Origin": "https://www.example.com",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.9",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    options = {"scheme": "https", "query": f"user={user}", "websocket": websocket}
    return call_asgi(quiet, path, headers=fields, scope={"client": (address, 50_000)}, **options)


def facts(side):
    app = side.app
    sent = uuid4().hex
    yield "the id of the proxy is kept", ask(app, X_Request_ID=sent).header("X-Request-ID") == sent
    first, second = ask(app, user="tanaka"), ask(app, user="sato")
    yield "two requests have two ids", first.header("X-Request-ID") != second.header("X-Request-ID")
    yield "the view knows the id", first.body.decode() == first.header("X-Request-ID")
    lines = side.output.getvalue().splitlines()[-2:]
    expected = [f"{first.body.decode()} page of tanaka", f"{second.body.decode()} page of sato"]
    yield "each log line has its own id", lines == expected
    forged = ask(app, X_Request_ID="x status=200 user=admin").header("X-Request-ID")
    yield "an id that would forge a log line is kept", "admin" in forged
    yield "a WebSocket has an id", ask(app, "/socket", websocket=[]).received[0] is not None
    # From here on, they differ on purpose.
    yield (
        "an id of a stranger is kept",
        ask(app, "/", STRANGER, X_Request_ID=sent).header("X-Request-ID") == sent,
    )
    yield (
        "an id that is no UUID is kept",
        ask(app, X_Request_ID="build-7").header("X-Request-ID") == "build-7",
    )
    names = [name.lower() for name, _ in ask(app, "/own-id").headers]
    yield "id fields if the view sets one", names.count("x-request-id")
    yield "a 500 has an id", ask(app, "/broken").header("X-Request-ID") is not None
    records.clear()
    ask(app), ask(app, "/broken")
    yield "records of two requests", len(records)


for (what, old), (_, new) in zip(facts(before), facts(after), strict=True):
    print(f"{what}: {old} | {new}")
