"""Radicale, a CalDAV server, with its web front end."""

from __future__ import annotations

from compatibility_walks import Application, Visit

_EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//compatibility//EN
BEGIN:VEVENT
UID:one
DTSTAMP:20260101T000000Z
DTSTART:20260102T100000Z
SUMMARY:Meeting
END:VEVENT
END:VCALENDAR
"""


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("sign in"):
        visit.go("/.web/")
        page.fill("input[data-name=user]", "visitor")
        page.fill("input[data-name=password]", "open sesame")
        page.locator("#loginscene button.green[type=submit]").click()
        visit.sees("#collectionsscene")
    with visit.step("make a calendar"):
        page.locator("#collectionsscene [data-name=new]").first.click()
        scene = visit.sees("#createcollectionscene")
        scene.locator("[data-name=displayname]").fill("Work")
        scene.locator("[data-name=submit]").click()
        visit.sees("#collectionsscene article:has-text('Work')")
    with visit.step("MKCALENDAR and PUT of a program"):
        visit.send("MKCALENDAR", "/visitor/home/", expect=201, headers=_BASIC)
        visit.send("PUT", "/visitor/home/one.ics", expect=201, data=_EVENT, headers=_BASIC)
    with visit.step("PROPFIND"):
        found = visit.send("PROPFIND", "/visitor/home/", expect=207, headers={"Depth": "1", **_BASIC})
        assert "one.ics" in found.text()
    with visit.step("REPORT"):
        body = (
            '<C:calendar-query xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:D="DAV:"><D:prop><D:getetag/></D:prop>'
            '<C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>'
        )
        found = visit.send(
            "REPORT", "/visitor/home/", expect=207, data=body, headers={"Depth": "1", **_BASIC}
        )
        assert "one.ics" in found.text()
    with visit.step("MOVE and DELETE"):
        moved = {"Destination": visit.url + "/visitor/home/two.ics", **_BASIC}
        visit.send("MOVE", "/visitor/home/one.ics", expect=201, headers=moved)
        visit.send("DELETE", "/visitor/home/two.ics", expect=200, headers=_BASIC)
    with visit.step("well-known address"):
        visit.send("GET", "/.well-known/caldav", expect=301)


_BASIC = {"Authorization": "Basic dmlzaXRvcjpvcGVuIHNlc2FtZQ=="}

APPLICATION = Application(
    name="radicale",
    distribution="Radicale",
    kind="wsgi",
    framework="WSGI",
    files={
        "config": "[auth]\ntype = htpasswd\nhtpasswd_filename = users\nhtpasswd_encryption = plain\n"
        "[storage]\nfilesystem_folder = collections\n",
        "users": "visitor:open sesame\n",
    },
    start="""
from radicale import config
from radicale.app import Application

app = Application(config.load([("config", False)]))
""",
    walk=walk,
    page="/.web/",
)
