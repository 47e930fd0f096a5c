"""Flask-AppBuilder edits the tables of a database: Flask-Login, roles, uploads, and a REST API with its page."""

from __future__ import annotations

import base64

from compatibility_walks import Application, Visit

_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def walk(visit: Visit) -> None:
    page = visit.page

    def save(then: str) -> None:
        with page.expect_navigation():
            page.click("#model_form button[type=submit]")
        visit.go(then)

    with visit.step("sign in"):
        visit.go("/login/")
        visit.sees("input[name=username]").fill("admin")
        page.fill("input[name=password]", "compatibility")
        page.click("input[type=submit]")
        visit.sees("text=Ada Byron")
    with visit.step("write and upload"):
        visit.go("/people/add")
        visit.sees("#name").fill("Grace")
        page.fill("#born", "1906-12-09")
        page.keyboard.press("Escape")
        page.set_input_files(
            "#picture", {"name": "face.png", "mimeType": "image/png", "buffer": base64.b64decode(_PICTURE)}
        )
        page.set_input_files("#letter", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a letter"})
        save("/people/list/")
        visit.sees("td:has-text('Grace')")
    with visit.step("picture"):
        picture = visit.sees("img.face")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    with visit.step("download"):
        assert visit.download(lambda: visit.sees("td a:has-text('a.txt')").click()) == b"a letter"
    with visit.step("choose a date"):
        visit.go("/people/edit/1")
        visit.sees(".appbuilder_date .input-group-addon").click()
        visit.sees(".datepicker td.day:not(.old)").click()
        page.fill("#name", "Grace Hopper")
        save("/people/list/")
        visit.sees("td:has-text('Grace Hopper')")
    with visit.step("search"):
        visit.go("/people/list/")
        visit.sees("text=Search").click()
        visit.sees("#filter_form .dropdown-toggle, button:has-text('Add Filter')").click()
        visit.sees("a.filter:has-text('Name')").click()
        visit.sees("input[name*=name]").fill("Grace")
        visit.sees("#filter_form button[type=submit]").click()
        page.wait_for_url("**/people/list/?*")
        visit.sees("td:has-text('Grace')")
    with visit.step("users and roles"):
        visit.go("/users/add")
        visit.sees("#first_name").fill("Alan")
        page.fill("#last_name", "Turing")
        page.fill("#username", "alan")
        page.fill("#email", "alan@example.test")
        page.click(".select2-container:has(+ #roles), #s2id_roles, .select2-selection")
        visit.sees(".select2-results li:has-text('Public')").click()
        page.fill("#password", "compatibility")
        page.fill("#conf_password", "compatibility")
        save("/users/list/")
        visit.sees("td:has-text('Turing')")
    with visit.step("page of the API"):
        visit.go("/swagger/v1")
        visit.sees(".opblock:has-text('/api/v1/person/')")
    with visit.step("API from another program"):
        program = visit.context.browser.new_context(base_url=visit.url)  # has no cookies of the page
        credentials = {"username": "admin", "password": "compatibility", "provider": "db"}
        signed_in = program.request.post("/api/v1/security/login", data=credentials)
        assert signed_in.ok, signed_in.text()
        token = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        for method, path in (("POST", ""), ("PUT", "2"), ("DELETE", "2")):
            done = program.request.fetch(
                f"/api/v1/person/{path}", method=method, data={"name": "Edsger"}, headers=token
            )
            assert done.ok, done.text()
        program.close()
    with visit.step("delete"):
        visit.go("/people/list/")
        visit.sees("tr:has-text('Grace') a[href*='/people/delete/'], tr:has-text('Grace') a.confirm").click()
        visit.sees("#modal-confirm-ok").click()
        page.locator("td:has-text('Grace')").wait_for(state="detached")
    with visit.step("sign out"):
        visit.go("/logout/")
        visit.go("/people/list/")
        visit.sees("input[name=password]")


APPLICATION = Application(
    name="flask_appbuilder",
    distribution="flask-appbuilder",
    kind="wsgi",
    framework="Flask",
    files={
        "seed.py": """
from application import app, builder, db

with app.app_context():
    db.create_all()
    users = builder.sm
    users.add_user("admin", "Ada", "Byron", "ada@example.test", users.find_role("Admin"), "compatibility")
"""
    },
    commands=(("python", "seed.py"),),
    start="""
from pathlib import Path

from flask import Flask
from flask_appbuilder import AppBuilder, Model, ModelRestApi, ModelView
from flask_appbuilder.filemanager import get_file_original_name
from flask_appbuilder.models.mixins import FileColumn, ImageColumn
from flask_appbuilder.models.sqla.base import SQLA
from flask_appbuilder.models.sqla.interface import SQLAInterface
from markupsafe import Markup
from sqlalchemy import Column, Date, Integer, String

home = Path(__file__).parent
app = Flask(__name__)
app.config.update(
    SECRET_KEY="compatibility",
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{home}/app.db",
    FAB_API_SWAGGER_UI=True,
    UPLOAD_FOLDER=f"{home}/files/",
    IMG_UPLOAD_FOLDER=f"{home}/static/pictures/",
    IMG_UPLOAD_URL="/static/pictures/",
)
db = SQLA(app)


class Person(Model):
    __tablename__ = "person"
    id = Column(Integer, primary_key=True)
    name = Column(String(150), nullable=False)
    born = Column(Date)
    picture = Column(ImageColumn(size=(300, 300, True), thumbnail_size=(30, 30, True)))
    letter = Column(FileColumn)

    def face(self):
        from flask_appbuilder.filemanager import ImageManager
        return Markup('<img class="face" alt="" src="{}">').format(ImageManager().get_url(self.picture or ""))

    def download(self):
        return Markup('<a href="/people/download/{}">{}</a>').format(
            self.letter or "", get_file_original_name(self.letter or "_sep_"))


class People(ModelView):
    route_base = "/people"
    datamodel = SQLAInterface(Person)
    add_columns = edit_columns = ["name", "born", "picture", "letter"]
    list_columns = ["name", "born", "face", "download"]
    show_columns = ["name", "born", "face", "download"]
    search_columns = ["name", "born"]


class PeopleApi(ModelRestApi):
    resource_name = "person"
    datamodel = SQLAInterface(Person)


with app.app_context():
    builder = AppBuilder(app, db.session)
    builder.add_view(People, "People", icon="fa-user", category="Site")
    builder.add_api(PeopleApi)
""",
    walk=walk,
    headers="""\
csp.script-src-elem = ["'unsafe-inline'"]
csp.style-src-attr = ["'unsafe-inline'"]
""",
    looser=(
        "pages may contain scripts and styles, as the templates do",
        "テンプレートに含まれる、ページ内のスクリプトとスタイルを許可",
    ),
    page="/login/",
)
