import after
import before

from mks_hardening.testing import call_wsgi

PAGE = {"Host": "localhost", "Sec-Fetch-Site": "same-origin"}


def post(app, path, *, address="198.51.100.7", **headers):
    environ = {"REMOTE_ADDR": address}
    return call_wsgi(app, path, method="POST", headers={**PAGE, **headers}, environ=environ)


def statuses(app, path, name, values):
    return " ".join(str(post(app, path, address="192.0.2.1", **{name: value}).status) for value in values)


def facts(app):
    answers = [post(app, "/sign-in") for _ in range(5)]
    yield "five sign-ins in a row", " ".join(str(answer.status) for answer in answers)
    refused = answers[-1]
    yield "the refusal is machine-readable", refused.header("Content-Type")
    yield "it says when to retry", int(refused.header("Retry-After")) <= 60
    names = {name.lower() for name, _ in answers[0].headers if "ratelimit" in name.lower()}
    yield "a response shows the remaining quota", " ".join(sorted(names))
    neighbours = [post(app, "/sign-in", address=f"2001:db8::{number}").status for number in range(1, 5)]
    yield "four addresses of one IPv6 network", " ".join(map(str, neighbours))
    yield (
        "two uploads of 5, then one",
        " ".join(str(post(app, "/upload", **{"X-Files": "5"}).status) for _ in range(3)),
    )
    codes = ["right"] * 4 + ["wrong"] * 3 + ["right"]
    yield "four right codes, three wrong, one right", statuses(app, "/confirm", "X-Code", codes)
    yield "two reports of a free plan", statuses(app, "/report", "X-Plan", ["free"] * 2)
    yield "two of a team", statuses(app, "/report", "X-Plan", ["team"] * 2)
    yield "two of an unknown plan", statuses(app, "/report", "X-Plan", ["gold"] * 2)
    yield "the probe, 150 times", {call_wsgi(app, "/livez", headers=PAGE).status for _ in range(150)}


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
