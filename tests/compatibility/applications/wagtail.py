"""A site of ``wagtail start``: Django with an administration, a rich text editor, previews and images."""

from __future__ import annotations

import base64

from compatibility_walks import Application, Visit

_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def walk(visit: Visit) -> None:
    page = visit.page
    with visit.step("front page"):
        visit.go("/")
        visit.sees("h1")
    with visit.step("sign in"):
        visit.go("/admin/login/")
        page.fill("input[name=username]", "ann")
        page.fill("input[name=password]", "open sesame")
        page.locator("form button[type=submit]").first.click()
        page.wait_for_url("**/admin/")
        visit.sees("main")
    with visit.step("edit a page"):
        visit.go("/admin/pages/3/edit/")
        page.fill("input[name=title]", "Changed")
    with visit.step("preview"):
        page.locator("button[aria-label='Toggle preview'], button[data-side-panel=preview]").first.click()
        visit.sees("iframe[title=Preview], iframe#w-preview-iframe, [data-side-panel=preview] iframe")
        frame = page.frame_locator("[data-side-panel=preview] iframe").first
        frame.locator("body *").first.wait_for(state="attached")
    with visit.step("publish"):
        visit.go("/admin/pages/3/edit/")
        page.fill("input[name=title]", "Changed")
        page.locator("footer .w-dropdown__toggle").click()
        page.locator("button[name=action-publish]").first.click()
        visit.sees(".messages .success")
        visit.go("/")
    with visit.step("upload a picture"):
        visit.go("/admin/images/add/")
        page.set_input_files(
            "input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": _PICTURE}
        )
        page.fill("main input[name=title]", "Picture")
        page.locator("main form button[type=submit]").last.click()
        visit.sees(".messages .success")
    with visit.step("pictures"):
        visit.go("/admin/images/")
        visit.sees("main img")
    with visit.step("upload a document"):
        visit.go("/admin/documents/multiple/add/")
        file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"}
        page.locator("input[type=file]").first.set_input_files(file)
        visit.sees("text=Upload successful")
    with visit.step("download it"):
        assert visit.send("GET", "/documents/1/a.txt", expect=200).text() == "text"
    with visit.step("search"):
        visit.go("/admin/pages/search/?q=home")
        visit.sees("main")
    for name in ("users", "sites", "reports/site-history"):
        with visit.step(name.replace("/", ", ")):
            visit.go(f"/admin/{name}/")
            visit.sees("main")
    with visit.step("administration of Django"):
        visit.go("/django-admin/")
        visit.sees("text=Groups")
    with visit.step("sign out"):
        visit.go("/admin/")
        with page.expect_navigation():
            page.locator("form[action*=logout]").first.evaluate("form => form.submit()")


_USER = """
from django.contrib.auth import get_user_model
get_user_model().objects.create_superuser("ann", "ann@example.com", "open sesame")
"""

# Its development settings read this file. Threads that write at once wait for each other.
_SEED = """
from pathlib import Path

Path("portal/settings/local.py").write_text('''
from .base import DATABASES

DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 30}
''')
"""

APPLICATION = Application(
    name="wagtail",
    distribution="wagtail",
    kind="wsgi",
    framework="Django",
    files={"seed.py": _SEED},
    commands=(
        ("wagtail", "start", "portal", "."),
        ("python", "seed.py"),
        ("python", "manage.py", "migrate", "-v0"),
        ("python", "manage.py", "shell", "-c", _USER),
    ),
    start="""
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.dev")

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

app = StaticFilesHandler(get_wsgi_application())
""",
    walk=walk,
    headers="""\
["/admin/"]
csp.script-src-elem = ["'unsafe-inline'"]
csp.style-src = ["'unsafe-inline'"]
csp.connect-src = ["https://releases.wagtail.org"]
csp.img-src = ["http://www.gravatar.com", "blob:"]
""",
    looser=(
        "Below `/admin/`, pages may contain scripts and styles, ask for the latest version, and show avatars",
        "`/admin/` 以下で、ページ内のスクリプトとスタイル、最新バージョンの確認、アバターの表示を許可",
    ),
    options={"timezone_id": "UTC"},
    page="/",
)
