"""Piccolo Admin: FastAPI with a single-page front end, a session cookie and its own CSRF token."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("sign in"):
        visit.go("/")
        visit.sees("input[name=username]").fill("ann")
        page.fill("input[name=password]", "open sesame")
        page.locator("form button").first.click()
        visit.sees("a:has-text('Task')")
    with visit.step("create"):
        visit.go("/#/task")
        with page.expect_response("**/new/**") as defaults:
            visit.sees("text=Add Row").click()
        defaults.value.finished()
        page.evaluate("() => new Promise(done => setTimeout(done, 100))")
        visit.sees("input[name=name]").fill("Paint")  # the default values would have replaced it
        page.locator("form button:has-text('Create')").first.click()
        visit.sees("text=Successfully added row")
        visit.go("/#/task")
        page.reload()
        visit.sees("td:has-text('Paint')")
    with visit.step("edit"):
        page.locator("td a[href*='#/task/1']").first.click()
        visit.sees("input[name=name]").fill("Paint the door")
        page.locator("form button:has-text('Save')").first.click()
        visit.sees("text=Successfully saved row")
    with visit.step("list"):
        visit.go("/#/task")
        page.reload()
        visit.sees("text=Paint the door")
    with visit.step("API documentation"):
        visit.go("/api/docs/")
        page.locator("#swagger-ui").wait_for(state="attached")


APPLICATION = Application(
    name="piccolo_admin",
    distribution="piccolo-admin",
    kind="asgi",
    framework="FastAPI",
    files={
        "tables.py": """
from piccolo.columns import Boolean, Varchar
from piccolo.engine.sqlite import SQLiteEngine
from piccolo.table import Table
from piccolo.apps.user.tables import BaseUser
from piccolo_api.session_auth.tables import SessionsBase

DB = SQLiteEngine("site.sqlite")


class Task(Table, db=DB):
    name = Varchar()
    done = Boolean()


class User(BaseUser, tablename="user", db=DB):
    pass


class Sessions(SessionsBase, db=DB):
    pass
""",
        "seed.py": """
from tables import Sessions, Task, User

for table in (User, Sessions, Task):
    table.create_table(if_not_exists=True).run_sync()
User.create_user_sync(username="ann", password="open sesame", admin=True, superuser=True, active=True)
""",
    },
    commands=(("python", "seed.py"),),
    start="""
from piccolo_admin.endpoints import create_admin
from tables import Sessions, Task, User

# It refuses other origins when it is served over https.
HOSTS = ["localhost", "knowledge.example.test"]
app = create_admin([Task], auth_table=User, session_table=Sessions, production=False, allowed_hosts=HOSTS)
""",
    walk=walk,
    headers="""\
csp.style-src = ["'unsafe-inline'"]

["/api/docs/"]
csp.script-src-elem = ["'unsafe-inline'", "https://cdn.jsdelivr.net"]
csp.style-src = ["https://cdn.jsdelivr.net"]
csp.img-src = ["https://fastapi.tiangolo.com"]
""",
    looser=(
        "The front end inserts styles; the page of the API's documentation comes from a CDN, with a script inside",
        "フロントエンドが挿入するスタイルと、CDN を使う API ドキュメントのページのスクリプトを許可",
    ),
)
