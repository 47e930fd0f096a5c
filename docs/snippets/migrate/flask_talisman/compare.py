import re

import after
import before

from mks_hardening.testing import call_wsgi

SITE = {"Host": "www.example.com"}


def facts(app):
    page = call_wsgi(app, headers=SITE, scheme="https")
    policy = page.header("Content-Security-Policy")
    nonce = re.search(r'nonce="(.+?)"', page.body.decode())[1]
    yield "the nonce of the page is in the policy", f"'nonce-{nonce}'" in policy
    yield "a page may be framed", page.header("X-Frame-Options") != "DENY"
    yield "HSTS, in seconds", re.search(r"\d+", page.header("Strict-Transport-Security"))[0]
    yield (
        "headers on a 500",
        call_wsgi(app, "/broken", headers=SITE, scheme="https").header("X-Frame-Options"),
    )
    redirect = call_wsgi(app, headers=SITE)
    yield "http gets", f"{redirect.status} {redirect.header('Location')}"
    yield (
        "a foreign host, over http",
        call_wsgi(app, headers={"Host": "evil.example"}).header("Location"),
    )
    spoofed = {**SITE, "X-Forwarded-Proto": "https"}
    yield "http that claims to be https", call_wsgi(app, headers=spoofed).status
    yield "headers in all", sum(not name.lower().startswith("content-") for name, _ in page.headers)


for (what, old), (_, new) in zip(facts(before.app), facts(after.app), strict=True):
    print(f"{what}: {old} | {new}")
