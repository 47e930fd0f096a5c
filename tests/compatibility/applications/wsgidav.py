"""WsgiDAV serves files over WebDAV, with a directory browser."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("front page"):
        visit.go("/")
        visit.sees("a:has-text('letter.txt')")
    with visit.step("download"):
        assert "Dear" in (visit.go("/letter.txt").text())
    with visit.step("download a part"):
        part = visit.send("GET", "/letter.txt", expect=206, headers={"Range": "bytes=0-3"})
        assert part.text() == "Dear"
    with visit.step("PUT a file"):
        visit.send("PUT", "/new.bin", expect=201, data=b"0123456789" * 20_000)
    with visit.step("PROPFIND"):
        listed = visit.send("PROPFIND", "/", expect=207, headers={"Depth": "1"})
        assert "new.bin" in listed.text()
    with visit.step("MKCOL, COPY and MOVE"):
        visit.send("MKCOL", "/folder", expect=201)
        visit.send("COPY", "/new.bin", expect=201, headers={"Destination": visit.url + "/folder/copy.bin"})
        visit.send("MOVE", "/new.bin", expect=201, headers={"Destination": visit.url + "/folder/moved.bin"})
    with visit.step("LOCK and UNLOCK"):
        body = (
            '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
            "<D:locktype><D:write/></D:locktype><D:owner>x</D:owner></D:lockinfo>"
        )
        locked = visit.send("LOCK", "/letter.txt", expect=200, data=body)
        visit.send("UNLOCK", "/letter.txt", expect=204, headers={"Lock-Token": locked.headers["lock-token"]})
    with visit.step("PROPPATCH"):
        body = (
            '<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:" xmlns:x="x:"><D:set><D:prop><x:a>1</x:a>'
            "</D:prop></D:set></D:propertyupdate>"
        )
        visit.send("PROPPATCH", "/letter.txt", expect=207, data=body)
    with visit.step("folder"):
        visit.go("/folder/")
        visit.sees("a:has-text('moved.bin')")
    with visit.step("DAV of a page's own script"):
        page.goto(visit.url + "/")
        assert "letter.txt" in visit.fetch("/", method="PROPFIND", headers={"Depth": "1"}, expect=207)
        visit.fetch("/folder/moved.bin", method="DELETE", expect=204)


APPLICATION = Application(
    name="wsgidav",
    distribution="WsgiDAV",
    kind="wsgi",
    framework="WSGI",
    files={"files/letter.txt": "Dear reader"},
    start="""
from pathlib import Path
from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp({
    "provider_mapping": {"/": str(Path(__file__).with_name("files"))},
    "simple_dc": {"user_mapping": {"*": {"visitor": {"password": "open sesame"}}}},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    "lock_storage": True,
    "property_manager": True,
})
""",
    walk=walk,
    headers="""\
csp.script-src-attr = ["'unsafe-inline'"]
csp.style-src = ["'unsafe-inline'"]
csp.object-src = ["'self'"]
""",
    looser=(
        "Pages may contain styles, `onclick` attributes and plug-ins of the same host: the directory browser does",
        "ディレクトリー一覧が使うため、ページ内のスタイル、`onclick` 属性、同じホストのプラグインを許可",
    ),
    options={"http_credentials": {"username": "visitor", "password": "open sesame"}},
)
