from contextlib import suppress

import after
import before

from mks_hardening.testing import call_asgi

HERE, ELSEWHERE = {"Origin": "https://www.example.com"}, {"Origin": "https://other.example"}
APP = {"Origin": "https://app.example.com"}
TOKEN = {"Authorization": "Bearer of-the-app"}
PUT = {"Access-Control-Request-Method": "PUT"}


def ask(app, path="/me", scheme="https", host="www.example.com", cookie=None, **options):
    async def quiet(scope, receive, send):
        with suppress(RuntimeError):  # both pass it on to the server after the response
            await app(scope, receive, send)

    headers = {"Host": host, **options.pop("headers", {}), **({"Cookie": cookie} if cookie else {})}
    return call_asgi(quiet, path, headers=headers, scheme=scheme, **options)


def signed_in(app, user):
    answer = ask(app, f"/sign-in/{user}", method="POST", headers=HERE)
    return answer.header("Set-Cookie").partition(";")[0]


def who(app, *cookies):
    answers = [ask(app, cookie=cookie) for cookie in cookies]
    return " ".join(
        answer.body.decode() if answer.status == 200 else str(answer.status) for answer in answers
    )


def readable(answer):
    return answer.header("Access-Control-Allow-Origin") is not None


def facts(app):
    tanaka, sato = signed_in(app, "tanaka"), signed_in(app, "sato")
    yield "two users, and a visitor", who(app, tanaka, sato, None)
    answer = ask(app, "/sign-out", method="POST", cookie=sato, headers=HERE)
    left = answer.header("Set-Cookie").partition(";")[0]
    yield "after Sato signed out", who(app, tanaka, left)
    yield "another host", ask(app, host="evil.example").status
    pages = [readable(ask(app, headers=origin)) for origin in (APP, ELSEWHERE)]
    yield "the app may read, another site may not", pages
    preflights = [ask(app, method="OPTIONS", headers=origin | PUT) for origin in (APP, ELSEWHERE)]
    yield "nor send PUT", [readable(answer) for answer in preflights]
    # From here on, they differ on purpose.
    yield "a copy of the cookie after signing out", who(app, sato)
    plain = ask(app, scheme="http", host="www.example.com:8080")
    yield "plain http", f"{plain.status} {plain.header('Location')}"
    yield "a plain WebSocket", ask(app, "/socket", scheme="http", headers=HERE, websocket=[]).status
    yield "two Host fields", ask(app, headers={"host": "evil.example"}).status
    form = ask(app, "/sign-out", method="POST", cookie=tanaka, headers=ELSEWHERE)
    yield "a form of another site", form.status
    socket = ask(app, "/socket", cookie=tanaka, headers=ELSEWHERE, websocket=[])
    yield "a WebSocket of another site", socket.status
    sent = [ask(app, "/sign-out", method="POST", headers=APP | extra).status for extra in (TOKEN, {})]
    yield "a form of the app, with a token and without", sent
    error = ask(app, "/broken", headers=APP)
    yield "the app may read a 500", readable(error)
    yield "headers of a 500", error.header("X-Content-Type-Options")


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
