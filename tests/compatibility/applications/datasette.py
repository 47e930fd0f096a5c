"""Datasette publishes SQLite databases: tables, a SQL editor, exports, an actor with a signed cookie."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("front page"):
        visit.go("/")
        visit.sees("a:has-text('places')")
    with visit.step("sign in"):
        visit.go("/-/auth-token?token=compatibility")
        visit.go("/-/actor.json")
        visit.sees("text=root")
    with visit.step("database"):
        visit.go("/data")
        visit.sees("h2:has-text('Tables')")
    with visit.step("table"):
        visit.go("/data/places?_facet=kind")
        visit.sees("table.rows-and-columns td")
    with visit.step("menu of a column"):
        page.locator("th svg, th .dropdown-menu-icon").first.click()
        visit.sees(".dropdown-menu")
    with visit.step("row"):
        visit.go("/data/places/1")
        visit.sees("text=Nara")
    with visit.step("query"):
        visit.go("/data?sql=select+*+from+places")
        visit.sees(".CodeMirror-scroll")
        page.locator("form.sql input[type=submit]").first.click()
        visit.sees("table td:has-text('Nara')")
    with visit.step("stream an export"):
        body = visit.fetch("/data/places.csv?_stream=on&_size=max")
        assert body.count("\n") > 500
    with visit.step("JSON from another program"):
        visit.send("GET", "/data/places.json?_shape=array", expect=200)
    with visit.step("messages"):
        visit.go("/-/messages")
        page.fill("textarea, input[name=message]", "hello")
        page.locator(
            "form[action='/-/messages'] input[type=submit], main form input[type=submit]"
        ).first.click()
        visit.sees("text=hello")
    with visit.step("permissions"):
        visit.go("/-/permissions")
        visit.sees("text=view-instance")
    with visit.step("sign out"):
        visit.go("/-/logout")
        page.locator("main form input[type=submit], section form input[type=submit]").first.click()
        page.wait_for_url(visit.url + "/")


APPLICATION = Application(
    name="datasette",
    distribution="datasette",
    kind="asgi",
    framework="ASGI",
    files={
        "seed.py": """
import sqlite3

database = sqlite3.connect("data.db")
database.execute("create table places (id integer primary key, name text, kind text)")
database.execute("insert into places values (1, 'Nara', 'city')")
rows = [(f"Place {number}", "village") for number in range(600)]
database.executemany("insert into places (name, kind) values (?, ?)", rows)
database.commit()
"""
    },
    commands=(("python", "seed.py"),),
    start="""
from pathlib import Path
from datasette.app import Datasette

site = Datasette([str(Path(__file__).with_name("data.db"))])
site._root_token = "compatibility"
app = site.app()
""",
    walk=walk,
    headers="""\
csp.style-src = ["'unsafe-inline'"]
csp.script-src-elem = [
    "'sha256-DMtesc2dB3xCZhCWIkDIjRY30AJia2dU9R83J/BG2Y4='",
    "'sha256-uEjwHx6B6TylDkwnKXY5NeNNPyI38FvghD4BDhzZMRc='",
    "'sha256-fyi5q99UcdjzV8X7vfr/UYD4dsV4ViDDhotcy8GQ6PM='",
]
""",
    looser=(
        "Pages may contain styles, and three scripts of this version, named by their hashes",
        "アプリケーションが挿入するページ内のスタイルと、このバージョンの 3 つのスクリプト（ハッシュで指定）を許可",
    ),
    page="/data/places",
)
