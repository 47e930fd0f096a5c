from contextlib import suppress

import after
import before

from mks_hardening.testing import call_asgi

HERE, ELSEWHERE = {"Origin": "https://www.example.com"}, {"Origin": "https://other.example"}


def quiet(app):
    async def run(scope, receive, send):
        with suppress(RuntimeError):  # both pass it on to the server after the response
            await app(scope, receive, send)

    return run


def ask(app, path, *, scheme="https", host="www.example.com", **options):
    headers = {"Host": host, **options.pop("headers", {})}
    return call_asgi(quiet(app), path, headers=headers, scheme=scheme, **options)


def facts(app):
    yield "another host", ask(app, "/me", host="evil.example").status
    plain = ask(app, "/me", scheme="http", host="www.example.com:8080")
    yield "plain http", f"{plain.status} {plain.header('Location')}"
    answer = ask(app, "/sign-in", method="POST", headers=HERE)
    cookie = {"Cookie": answer.header("Set-Cookie").partition(";")[0]}
    yield "signed in", ask(app, "/me", headers=cookie).status
    yield "a form of another site", ask(app, "/sign-in", method="POST", headers=cookie | ELSEWHERE).status
    yield "a socket of another site", ask(app, "/socket", headers=cookie | ELSEWHERE, websocket=[]).status
    ask(app, "/sign-out", method="POST", headers=cookie | HERE)
    yield "a copy of the cookie after signing out", ask(app, "/me", headers=cookie).status
    error = ask(app, "/broken")
    yield (
        "a 500 with headers and an id",
        (error.header("X-Content-Type-Options"), error.header("X-Request-ID") is not None),
    )


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
