"""django CMS: pages edited in place in frames, with plugins, versions, media files and Django's admin."""

from __future__ import annotations

import base64

from compatibility_walks import Application, Visit

_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def walk(visit: Visit) -> None:
    page = visit.page
    frame = page.frame_locator(".cms-modal iframe")
    with visit.step("sign in"):
        visit.go("/admin/login/")
        visit.sees("input[name=username]").fill("admin")
        page.fill("input[name=password]", "compatibility")
        page.click("[type=submit]")
        visit.sees("text=Site administration")
    with visit.step("create a page in a frame"):
        visit.go("/")
        visit.sees(".cms-toolbar a:has-text('Create')").click()
        visit.sees(".cms-modal a:has-text('Next')").click()
        frame.locator("#id_1-title").fill("Home")
        visit.sees(".cms-modal a:has-text('Create')").click()
        page.wait_for_url("**/edit/**")
    with visit.step("write in a frame"):
        visit.sees(".cms-toolbar a[href*='/structure/']").click()
        visit.sees(".cms-structure .cms-submenu-add").click()
        visit.sees(".cms-modal a:text-is('Text')").click()
        frame.locator(".ProseMirror").fill("Fresh bread")
        page.keyboard.press("Control+a")
        frame.locator("[title=Bold]").first.click()
        visit.sees(".cms-modal a:has-text('Save')").click()
        page.locator(".cms-modal-open").wait_for(state="detached")
        visit.sees("strong:has-text('Fresh bread')")
    with visit.step("settings of the page"):
        visit.sees('.cms-toolbar >> text="Page"').click()
        visit.sees(".cms-toolbar a:has-text('Page settings')").click()
        frame.locator("#id_page_title").fill("Bakery")
        with page.expect_navigation():
            visit.sees(".cms-modal a:has-text('Save')").click()
        assert page.title() == "Bakery", page.title()
    with visit.step("preview"):
        visit.sees(".cms-toolbar a:has-text('Preview')").click()
        page.wait_for_url("**/preview/**")
        visit.sees("strong:has-text('Fresh bread')")
    with visit.step("publish"):
        visit.sees(".cms-toolbar a:text-is('Edit')").click()
        page.wait_for_url("**/edit/**")
        visit.sees(".cms-toolbar a:has-text('Publish')").click()
        visit.sees(".cms-toolbar >> text=Published")
    with visit.step("tree of pages"):
        visit.go("/admin/cms/pagecontent/?language=en-us")
        visit.sees(".jstree-anchor:has-text('Home'), .cms-tree-node:has-text('Home'), a:has-text('Home')")
    with visit.step("upload"):
        visit.go("/admin/filer/folder/")
        with page.expect_popup() as opened:
            visit.sees("a:has-text('New Folder')").click()
        opened.value.locator("input[name=name]").fill("Pictures")
        opened.value.locator("input[type=submit]").first.click()
        visit.sees("a:text-is('Pictures')").click()
        with page.expect_file_chooser() as chosen:
            visit.sees("a:has-text('Upload Files')").click()
        with page.expect_response("**/upload/**") as stored:
            chosen.value.set_files(
                {"name": "face.png", "mimeType": "image/png", "buffer": base64.b64decode(_PICTURE)}
            )
        assert stored.value.ok
        visit.sees("a:has-text('face.png')")
    with visit.step("versions"):
        visit.go("/admin/djangocms_versioning/pagecontentversion/?page=1&language=en-us")
        visit.sees("tr:has-text('Published')")
    with visit.step("part of a file"):
        visit.send("GET", "/static/admin/css/base.css", expect=206, headers={"Range": "bytes=0-99"})
    with visit.step("sign out"):
        visit.go("/admin/")
        visit.sees("#logout-form button").click()
        page.wait_for_url("**/admin/logout/")
    with visit.step("public page"):
        visit.go("/")
        visit.sees("strong:has-text('Fresh bread')")


APPLICATION = Application(
    name="django_cms",
    distribution="django-cms",
    kind="wsgi",
    framework="Django",
    files={
        "seed.py": """
import os
import subprocess
import sys
from pathlib import Path

# Its own command adds it to the project: yes; it installs packages: no.
commands = Path(sys.executable).parent
subprocess.run(
    [commands / "djangocms", ".", "--use-bundled-install-rules"], input="yes\\nno\\n", text=True, check=True
)
with Path("project/settings.py").open("a") as settings:
    settings.write('''
STATIC_ROOT = BASE_DIR / "static"
MEDIA_ROOT = BASE_DIR / "media"
MEDIA_URL = "/media/"
CMS_ENABLE_UPDATE_CHECK = False
# Threads that write at once wait for each other; without it SQLite refuses one of them.
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 30}
''')
with Path("project/urls.py").open("a") as urls:
    urls.write('''
from django.conf import settings
from django.conf.urls.static import static

urlpatterns = [*static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT), *urlpatterns]
''')
subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
subprocess.run([sys.executable, "manage.py", "collectstatic", "-v0", "--noinput"], check=True)
subprocess.run(
    [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username=admin", "--email=a@example.test"],
    env={**os.environ, "DJANGO_SUPERUSER_PASSWORD": "compatibility"},
    check=True,
)
"""
    },
    commands=(("django-admin", "startproject", "project", "."), ("python", "seed.py")),
    start="""
import os
from pathlib import Path

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

from django.core.wsgi import get_wsgi_application
from whitenoise import WhiteNoise

app = WhiteNoise(get_wsgi_application(), root=Path(__file__).with_name("static"), prefix="static")
""",
    walk=walk,
    headers="""\
csp.script-src = ["https://cdn.jsdelivr.net"]
csp.script-src-attr = ["'unsafe-inline'"]
csp.style-src = ["https://cdn.jsdelivr.net"]

["/admin/"]
csp.script-src-elem = ["https://cdn.jsdelivr.net", "'unsafe-inline'"]
csp.style-src = ["'unsafe-inline'"]
""",
    looser=(
        "Bootstrap from a CDN; event handlers; scripts and styles in pages of the admin",
        "CDN の Bootstrap、イベントハンドラー属性、管理画面のページ内のスクリプトとスタイルを許可",
    ),
    page="/admin/login/",
)
