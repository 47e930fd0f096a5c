import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

from mks_hardening.testing import call_wsgi


def facts(name):
    app = importlib.import_module(name).application
    if name == "before":  # its windows begin at fixed times, which must not happen between two requests
        import django_ratelimit.core

        django_ratelimit.core.time = SimpleNamespace(time=lambda: 1_800_000_000.0)

    def ask(path, times, address="192.0.2.1", method="GET", **headers):
        responses = [
            call_wsgi(
                app,
                f"/{path}",
                method=method,
                headers={"Host": "localhost", **headers},
                environ={"REMOTE_ADDR": address},
            )
            for _ in range(times)
        ]
        return " ".join(str(response.status) for response in responses), responses[-1]

    yield "five sign-ins of one address", ask("sign_in", 5)[0]
    yield "one of another address", ask("sign_in", 1, "192.0.2.2")[0]
    yield (
        "four addresses of one IPv6 network",
        " ".join(ask("sign_in", 1, f"2001:db8::{n}")[0] for n in range(4)),
    )
    yield "five GET of a view that limits POST", ask("comment", 5)[0]
    yield "three POST", ask("comment", 3, method="POST")[0]
    yield "three requests with one key", ask("data", 3, **{"X-Api-Key": "k1"})[0]
    yield "the same address with another key", ask("data", 1, **{"X-Api-Key": "k2"})[0]
    status, last = ask("report", 6)
    yield "six reports, 3 a minute and 5 an hour", status
    yield "a refusal says when to retry", last.header("Retry-After") is not None
    yield "and is", last.header("Content-Type").partition(";")[0]
    yield (
        "a response shows the remaining quota",
        ask("sign_in", 1, "192.0.2.3")[1].header("RateLimit") is not None,
    )


if sys.argv[1:]:  # each side in a process of its own: Django has one configuration
    print(json.dumps([*facts(sys.argv[1])]))
else:
    sides = [
        json.loads(subprocess.check_output([sys.executable, __file__, side]))  # noqa: S603 - this program
        for side in ("before", "after")
    ]
    for (what, old), (_, new) in zip(*sides, strict=True):
        print(f"{what}: {old} | {new}")
