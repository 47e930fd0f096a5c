import re
from contextlib import suppress

import after
import before

from mks_hardening.testing import call_asgi

ALIKE = [
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
]


def ask(app, path="/", scheme="https", names=None, **options):
    async def checked(scope, receive, send):
        async def lowered(message):
            if "headers" in message:
                fields = [(name.lower(), value) for name, value in message["headers"]]
                if names is not None:
                    names.extend(name for name, _ in message["headers"])
                message = {**message, "headers": fields}
            await send(message)

        with suppress(RuntimeError):  # Starlette passes it on to the server after the response
            await app(scope, receive, lowered)

    return call_asgi(checked, path, scheme=scheme, headers={"Host": "www.example.com"}, **options)


def facts(app):
    names = []
    page = ask(app, names=names)
    denial = ask(app, "/socket", websocket=[])
    yield "page, error, denied WebSocket", (page.status, ask(app, "/broken").status, denial.status)
    for name in ALIKE:
        yield name, page.header(name)
    policy = page.header("Content-Security-Policy")
    yield "who may frame it", re.search("frame-ancestors ([^;]+)", policy)[1]
    # From here on, they differ on purpose.
    yield "HSTS", page.header("Strict-Transport-Security")
    yield "features that are switched off", page.header("Permissions-Policy").count("=()")
    nonce = re.search(r"nonce='(.+?)'", page.body.decode())
    yield "the script of the page runs", nonce is not None and f"'nonce-{nonce[1]}'" in policy
    yield "any https site may style the page", "style-src 'self' https:" in policy
    yield "a view may open one feature", ask(app, "/map").header("Permissions-Policy") == "geolocation=(self)"
    yield "HSTS over plain http", ask(app, scheme="http").header("Strict-Transport-Security") is not None
    yield "headers on a WebSocket that is denied", denial.header("X-Content-Type-Options")
    yield "Server", repr(page.header("Server"))
    yield "names in lower case, as ASGI requires", all(name.islower() for name in names)


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
