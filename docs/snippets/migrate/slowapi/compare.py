import after
import before

from mks_hardening.testing import call_asgi

OURS = {"Host": "www.example.com", "Origin": "https://www.example.com"}
SEARCHES = 4 * ["/search"]
REPORTS = 5 * ["/report"]
FILES = ["/download", "/preview", "/download", "/preview", "/download"]


def ask(app, path, address="192.0.2.1", **headers):
    method = "POST" if path.startswith(("/sign-in", "/uploads")) else "GET"
    client = {"client": (address, 50_000)}
    return call_asgi(app, path, method=method, scheme="https", headers={**OURS, **headers}, scope=client)


def statuses(app, *paths, **options):
    return " ".join(str(ask(app, path, **options).status) for path in paths)


def cookie(answer):
    return answer.header("Set-Cookie").partition(";")[0]


def facts(app):
    answers = [ask(app, "/sign-in/tanaka") for _ in range(5)]
    yield "five sign-ins of one address", " ".join(str(answer.status) for answer in answers)
    other = ask(app, "/sign-in/sato", "192.0.2.2")
    yield "one of another address", other.status
    tanaka, sato = cookie(answers[0]), cookie(other)
    yield "four searches of Tanaka", statuses(app, *SEARCHES, cookie=tanaka)
    yield "one of Tanaka, from elsewhere", statuses(app, "/search", address="192.0.2.3", cookie=tanaka)
    yield "four of Sato, same address as Tanaka", statuses(app, *SEARCHES, cookie=sato)
    yield "five files, on two views", statuses(app, *FILES, cookie=tanaka)
    reports = [statuses(app, *REPORTS, cookie=user) for user in (tanaka, sato)]
    yield "five reports for each, by their plans", "; ".join(reports)
    uploads = [ask(app, "/uploads", cookie=sato, **{"X-Files": count}).status for count in "551"]
    yield "uploads of 5, 5 and 1 files", " ".join(map(str, uploads))
    remaining = answers[0].header("X-RateLimit-Remaining"), answers[2].header("X-RateLimit-Remaining")
    yield "remaining after the first and the third", " ".join(remaining)
    yield "Retry-After within the minute", 0 < int(answers[4].header("Retry-After")) <= 60
    # From here on, they differ on purpose.
    yield "the refusal is", answers[4].header("Content-Type")
    invented = [{"X_Forwarded_For": f"203.0.113.{number}"} for number in range(4)]
    contacts = [ask(app, "/contact", "192.0.2.4", **header).status for header in invented]
    yield "four invented X_Forwarded_For", " ".join(map(str, contacts))
    guesses = [f"/sign-in/user{number}" for number in range(4)]
    yield "one address signs in as four users", statuses(app, *guesses, address="192.0.2.5")
    neighbours = [ask(app, "/search", f"2001:db8::{n}").status for n in range(4)]
    yield "four addresses of one IPv6 network", " ".join(map(str, neighbours))
    yield "the OpenAPI document has 429", "429" in app.openapi()["paths"]["/search"]["get"]["responses"]


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
