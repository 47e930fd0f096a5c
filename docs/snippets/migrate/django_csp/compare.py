import importlib
import json
import re
import subprocess
import sys

from mks_hardening.testing import call_wsgi

ENFORCED, REPORTED = "Content-Security-Policy", "Content-Security-Policy-Report-Only"


def facts(name):
    app = importlib.import_module(name).application

    def get(path):
        return call_wsgi(app, path, headers={"Host": "localhost"}, scheme="https")

    def policy(path, field=ENFORCED):
        directives = (get(path).header(field) or "none").split("; ")
        return "; ".join(sorted(re.sub("nonce-[^']+", "nonce-...", each) for each in directives))

    page = get("/page")
    nonce = re.search(r'nonce="(.+?)"', page.body.decode())[1]
    yield "a page", policy("/page")
    yield "its nonce is in the policy", f"'nonce-{nonce}'" in page.header(ENFORCED)
    yield "the next page has another one", nonce not in get("/page").body.decode()
    yield "a view with a policy of its own", policy("/api")
    yield "a view that reports only", policy("/trial", REPORTED)
    yield "its view adds a source of images", "img-src https://img.example.com" in policy("/gallery")
    yield "and a nonce that no script uses", "nonce-" in policy("/gallery")
    yield "an excluded path", policy("/raw") != "none"
    yield "a 404", policy("/missing") != "none"
    yield "X-Content-Type-Options", page.header("X-Content-Type-Options")
    yield "X-Frame-Options", page.header("X-Frame-Options")


if sys.argv[1:]:  # each side in a process of its own: Django has one configuration
    print(json.dumps([*facts(sys.argv[1])]))
else:
    sides = [
        json.loads(subprocess.check_output([sys.executable, __file__, side]))  # noqa: S603 - this program
        for side in ("before", "after")
    ]
    for (what, old), (_, new) in zip(*sides, strict=True):
        print(f"{what}: {old} | {new}")
