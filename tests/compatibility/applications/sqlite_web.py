"""sqlite-web edits a SQLite database: forms on Flask, one password."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("sign in"):
        visit.go("/login/")
        page.fill("input[name=password]", "open sesame")
        page.locator("form button[type=submit]").first.click()
        visit.sees("a:has-text('seed')")
    with visit.step("create a table"):
        # The form is folded.
        form = page.locator("form[action='/create-table/']")
        with page.expect_navigation():
            form.evaluate("form => { form.table_name.value = 'notes'; form.submit() }")
        visit.go("/notes/")
    with visit.step("add a column"):
        visit.go("/seed/add-column/")
        page.fill("input[name=name]", "place")
        page.locator("select[name=type]").select_option(index=1)
        page.locator("form[action*=add-column] button[type=submit]").first.click()
        visit.sees("td:has-text('place')")
    with visit.step("insert a row"):
        visit.go("/seed/insert/")
        page.locator("textarea[name=name], input[name=name]").first.fill("Nara")
        page.locator("form button[type=submit]").last.click()
        visit.sees("td:has-text('Nara')")
    with visit.step("content"):
        visit.go("/seed/content/")
        visit.sees("td:has-text('Nara')")
    with visit.step("query"):
        visit.go("/seed/query/")
        page.fill("textarea[name=sql]", "select name from seed")
        page.locator("form:has(textarea[name=sql]) button[type=submit]").first.click()
        visit.sees("td:has-text('Nara')")
    with visit.step("upload an import"):
        visit.go("/seed/import/")
        file = {"name": "rows.csv", "mimeType": "text/csv", "buffer": b"name\nKyoto\n"}
        page.set_input_files("input[type=file]", file)
        page.locator("form[enctype] button[type=submit]").first.click()
        visit.go("/seed/content/")
        visit.sees("td:has-text('Kyoto')")
    with visit.step("download the database"):
        visit.go("/")
        assert visit.download(lambda: page.locator("a[href='/download/']").click()).startswith(b"SQLite")
    with visit.step("sign out"):
        visit.go("/logout/")
        visit.sees("input[name=password]")


APPLICATION = Application(
    name="sqlite_web",
    distribution="sqlite-web",
    kind="wsgi",
    framework="Flask",
    files={
        "seed.py": """
import sqlite3

sqlite3.connect("data.db").execute("create table seed (id integer primary key, name text)")
"""
    },
    commands=(("python", "seed.py"),),
    start="""
from pathlib import Path
from sqlite_web.sqlite_web import app, initialize_app

initialize_app([str(Path(__file__).with_name("data.db"))], password="open sesame")
""",
    walk=walk,
    settings={"MKS_HEADER_PRESET": "legacy"},
    looser=(
        "The preset `legacy`: every page contains scripts and styles",
        "プリセット `legacy`: すべてのページがページ内のスクリプトとスタイルを使用",
    ),
    page="/login/",
)
