"""pypiserver, a package index on Bottle: upload by a form, listings, downloads."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("front page"):
        visit.go("/")
        visit.sees("text=Welcome to pypiserver")
    with visit.step("upload as twine does"):
        visit.send(
            "POST",
            "/",
            expect=200,
            multipart={
                ":action": "file_upload",
                "content": {
                    "name": "toy-1.0.tar.gz",
                    "mimeType": "application/gzip",
                    "buffer": b"x" * 100_000,
                },
            },
        )
    with visit.step("listing"):
        visit.go("/simple/")
        visit.sees("a:has-text('toy')").click()
        visit.sees("a:has-text('toy-1.0.tar.gz')")
    with visit.step("download"):
        body = visit.download(lambda: page.locator("a:has-text('toy-1.0.tar.gz')").click())
        assert len(body) == 100_000
    with visit.step("download a part"):
        visit.send("GET", "/packages/toy-1.0.tar.gz", expect=206, headers={"Range": "bytes=0-3"})
    with visit.step("all packages"):
        visit.go("/packages/")
        visit.sees("a:has-text('toy-1.0.tar.gz')")
    with visit.step("search over XML-RPC"):
        body = (
            "<?xml version='1.0'?><methodCall><methodName>search</methodName><params><param><value><struct><member>"
            "<name>name</name><value><string>toy</string></value></member></struct></value></param></params></methodCall>"
        )
        visit.send("POST", "/RPC2", expect=200, data=body, headers={"Content-Type": "text/xml"})
    with visit.step("health"):
        visit.go("/health")
        visit.sees("text=Ok")


APPLICATION = Application(
    name="pypiserver",
    distribution="pypiserver",
    kind="wsgi",
    framework="Bottle",
    files={"packages/.keep": ""},
    start="""
from pathlib import Path
import pypiserver

app = pypiserver.app(
    roots=[Path(__file__).with_name("packages")], password_file=".", authenticate=[], fallback_url="/none"
)
""",
    walk=walk,
    page="/simple/",
)
