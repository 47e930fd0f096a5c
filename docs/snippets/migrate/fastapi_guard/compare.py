import logging

import after
import before

from mks_hardening.testing import call_asgi

logging.disable()
PROXY = {"client": ("10.0.0.7", 50_000)}
SHOP = {"Origin": "https://shop.example.com"}
PREFLIGHT = {
    **SHOP,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "x-basket",
}


def chunked(app):
    async def without_length(scope, receive, send):
        fields = [field for field in scope["headers"] if field[0] != b"content-length"]
        fields.append((b"transfer-encoding", b"chunked"))
        await app({**scope, "headers": fields}, receive, send)

    return without_length


def ask(app, path="/search", client="192.0.2.1", method="GET", body=b"", **fields):
    ours = {} if method == "GET" else {"Origin": "https://www.example.com"}
    sent = {"Host": "www.example.com", "X-Forwarded-For": client, "X-Forwarded-Proto": "https"}
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return call_asgi(app, path, method=method, body=body, headers={**sent, **ours, **fields}, scope=PROXY)


def statuses(app, count, *arguments, **options):
    return " ".join(str(ask(app, *arguments, **options).status) for _ in range(count))


def facts(app):
    yield "seven searches of one address", statuses(app, 7)
    yield "one of another address", statuses(app, 1, client="192.0.2.2")
    yield "four sign-ins", statuses(app, 4, "/sign-in", "192.0.2.3", "POST")
    yield "then four searches", statuses(app, 4, client="192.0.2.3")
    yield "an address that is denied", ask(app, client="203.0.113.66").status
    plain = ask(app, client="192.0.2.4", X_Forwarded_Proto="http")
    yield "over plain http", f"{plain.status} {plain.header('Location')}"
    yield "four pages that do not exist", statuses(app, 4, "/wp.php", "192.0.2.5")
    yield "a search of the same address", ask(app, client="192.0.2.5").status
    yield "a body of 2,000 bytes", ask(app, "/notes", "192.0.2.6", "POST", bytes(2000)).status
    shop = ask(app, client="192.0.2.7", **SHOP)
    yield "the shop may read", shop.header("Access-Control-Allow-Origin")
    invented = [ask(app, X_Forwarded_For=f"198.51.100.{number}, 192.0.2.8") for number in range(6)]
    yield "six addresses that the client invents", " ".join(str(answer.status) for answer in invented)
    # From here on, they differ on purpose.
    answer = ask(chunked(app), "/notes", "192.0.2.9", "POST", bytes(2000))
    yield "the same body, chunked", answer.status
    preflight = ask(app, method="OPTIONS", client="192.0.2.10", **PREFLIGHT)
    yield "a preflight may send X-Basket", preflight.header("Access-Control-Allow-Headers") is not None
    yield "six more preflights", statuses(app, 6, method="OPTIONS", client="192.0.2.10", **PREFLIGHT)
    refused = ask(app, **SHOP)
    yield "the shop may read a 429", refused.header("Access-Control-Allow-Origin") is not None
    yield "a 429 is", refused.header("Content-Type")
    neighbours = [ask(app, client=f"2001:db8::{number}").status for number in range(6)]
    yield "six addresses of one IPv6 network", " ".join(map(str, neighbours))
    foreign = {"Origin": "https://evil.example"}
    yield "a form of another site", ask(app, "/notes", "192.0.2.11", "POST", **foreign).status
    yield "another host", ask(app, client="192.0.2.12", Host="evil.example").status


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
