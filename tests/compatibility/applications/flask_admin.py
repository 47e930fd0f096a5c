"""A shop's back office with Flask-Login and Flask-Admin, as their documentations set them up."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("sign in"):
        visit.go("/sign-in")
        page.fill("input[name=name]", "ann")
        page.click("button")
        page.wait_for_url("**/admin/")
    with visit.step("list"):
        visit.go("/admin/article/")
        visit.sees("text=First")
    with visit.step("create"):
        visit.go("/admin/article/new/")
        page.fill("input[name=title]", "Second")
        page.fill("textarea[name=body]", "Text")
        page.locator("input[type=submit]").first.click()
        visit.sees("td:has-text('Second')")
    with visit.step("edit in a dialog"):
        visit.go("/admin/article/")
        page.locator(
            "td.list-buttons-column a[data-target], td.list-buttons-column a[data-bs-target]"
        ).first.click()
        field = visit.sees(".modal.show input[name=title]")
        field.fill("Third")
        page.locator(".modal.show input[type=submit]").first.click()
        visit.sees("td:has-text('Third')")
    with visit.step("edit in the list"):
        page.locator("td a.editable, td a[data-type=text]").first.click()
        visit.sees(".editable-input input").fill("Fourth")
        page.locator(".editable-submit").click()
        page.locator(".editable-input").wait_for(state="detached")
        visit.go("/admin/article/")
        visit.sees("td:has-text('Fourth')")
    with visit.step("search and filter"):
        visit.go("/admin/article/?search=Second")
        visit.sees("td:has-text('Second')")
    with visit.step("upload a file"):
        visit.go("/admin/files/upload/")
        page.set_input_files(
            "input[type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"}
        )
        page.locator("input[type=submit]").first.click()
        visit.sees("a:has-text('a.txt')")
    with visit.step("read it, and a part of it"):
        visit.send("GET", "/admin/files/download/a.txt", expect=200)
        visit.send("GET", "/admin/files/download/a.txt", expect=206, headers={"Range": "bytes=0-1"})
    with visit.step("delete with a question"):
        visit.go("/admin/article/")
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator("tr:has-text('Fourth') form:has(input[name=id]) button").click()
        visit.sees("text=Record was successfully deleted")
    with visit.step("export"):
        visit.go("/admin/article/")
        assert b"Second" in visit.download(lambda: page.evaluate("location = '/admin/article/export/csv/'"))
    with visit.step("sign out"):
        visit.go("/sign-out")
        visit.sees("input[name=name]")


APPLICATION = Application(
    name="flask_admin",
    distribution="Flask-Admin",
    kind="wsgi",
    framework="Flask, Flask-Login",
    files={"files/.keep": ""},
    start="""
from pathlib import Path

from flask import Flask, redirect, request, url_for
from flask_admin import Admin
from flask_admin.contrib.fileadmin import FileAdmin
from flask_admin.contrib.sqla import ModelView
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.update(SECRET_KEY="of the test", SQLALCHEMY_DATABASE_URI="sqlite:///shop.db")
db = SQLAlchemy(app)
login = LoginManager(app)


class Article(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String(80))
    body = db.Column(db.Text)


class User(UserMixin):
    def __init__(self, name):
        self.id = name


@login.user_loader
def load(name):
    return User(name)


@app.route("/sign-in", methods=["GET", "POST"])
def sign_in():
    if request.method == "POST":
        login_user(User(request.form["name"]))
        return redirect(url_for("admin.index"))
    return "<!doctype html><title>Sign in</title><form method=post><input name=name><button>Sign in</button></form>"


@app.route("/sign-out")
def sign_out():
    logout_user()
    return redirect(url_for("sign_in"))


class Members:
    def is_accessible(self):
        return current_user.is_authenticated

    def inaccessible_callback(self, name, **kwargs):
        return redirect(url_for("sign_in"))


class Articles(Members, ModelView):
    edit_modal = True
    can_export = True
    column_searchable_list = ["title"]
    column_filters = ["title"]
    column_editable_list = ["title"]


class Files(Members, FileAdmin):
    pass


admin = Admin(app, name="Shop")
admin.add_view(Articles(Article, db))
admin.add_view(Files(str(Path(__file__).with_name("files")), name="Files", endpoint="files", url="/admin/files"))
with app.app_context():
    db.create_all()
    if not db.session.query(Article).count():
        db.session.add(Article(title="First", body="Text"))
        db.session.commit()
""",
    walk=walk,
    headers="""\
["/admin/"]
csp.script-src-elem = ["'unsafe-inline'"]
csp.script-src-attr = ["'unsafe-inline'"]
csp.style-src-attr = ["'unsafe-inline'"]
""",
    looser=(
        "Below `/admin/`, pages may contain scripts, `onclick` and `style` attributes: dialogs and lists do",
        "`/admin/` 以下では、ダイアログと一覧が使うページ内のスクリプト、`onclick` 属性、`style` 属性を許可",
    ),
    page="/sign-in",
)
