"""The page on an application of one's own, typed on a bare machine: from a source tree to a site that answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy_machine import PREFIX, Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.settings.definitions import SERVERS, Server
from mks_deploy.settings.settings_file import read_settings
from testbed.polling import wait_until
from testbed.services import program

APPLICATIONS = Path(__file__).parent / "apps"
PAGE = Path(__file__).parents[2] / "docs" / "en" / "how-to" / "own-application.md"
HOST = "shop.example.test"
OWN = '[edge]\nipv6 = false\n[variables]\nALLOWED_HOSTS = "shop.example.test"\n'

# Eight clients, each request on a connection of its own. One file says that some were answered, another stops them.
CLIENTS = """
import http.client, os, pathlib, ssl, threading
over, lost, number = pathlib.Path("/run/over"), [], [0]
context = ssl._create_unverified_context()

def client(form):
    while not over.exists():
        connection = http.client.HTTPSConnection("127.0.0.1", timeout=60, context=context)
        try:
            connection.sock = context.wrap_socket(
                __import__("socket").create_connection(("127.0.0.1", 443), 60), server_hostname=os.environ["SITE"]
            )
            fields = {"Host": os.environ["SITE"], "Content-Type": "application/x-www-form-urlencoded"}
            if form:
                connection.request("POST", form, "text=nail&name=nail", fields)
            else:
                connection.request("GET", "/slow", headers=fields)
            status = connection.getresponse().status
            number[0] += 1
            if status not in {200, 303}:
                lost.append(str(status))
        except Exception as error:
            lost.append(repr(error))
        finally:
            connection.close()
        if number[0] >= 8:
            pathlib.Path("/run/answered").touch()

forms = [""] * 5 + [os.environ["FORM"]] * 3
threads = [threading.Thread(target=client, args=(form,)) for form in forms]
for thread in threads: thread.start()
for thread in threads: thread.join()
pathlib.Path("/run/answered").write_text(str(number[0]))
pathlib.Path("/run/lost").write_text(" ".join(lost[:20]))
raise SystemExit(bool(lost))
"""

# What a newcomer adds: a database of SQLite in the folder of the application.
GUESTS = """
import sqlite3


def guests():
    database = sqlite3.connect("guests.db", timeout=20)
    database.execute("CREATE TABLE IF NOT EXISTS guests (name TEXT)")
    return database


@app.post("/guests")
def add_guest():
    with guests() as database:
        database.execute("INSERT INTO guests VALUES (?)", [request.form["name"]])
    return redirect(url_for("index"), code=303)


guests()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel"),
]


@dataclass(frozen=True)
class Case:
    """An application, its secret, the address that takes a form, and its server."""

    application: str
    secret: str
    form: str
    server: str = "gunicorn"


def commands() -> list[str]:
    """The commands of the page, but for those that need a distribution, an index of packages or a provider."""
    section = PAGE.read_text("utf-8").partition("(own-host)=")[2].partition("\n(own-later)=")[0]
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) == 9
    return [
        # There is no provider here: nginx keeps its placeholder. None of the applications has a database.
        line.replace(" apply ", " apply --no-certificate --no-migrate ")
        for line in lines
        if not re.match(r"apt-get |python3 -m venv|\S+/pip |mks-deploy up ", line)
    ]


@pytest.fixture
def machine() -> Iterator[Machine]:
    for name in ("certbot", "logrotate", "nginx", "git"):
        program(name)
    folder = Path(tempfile.mkdtemp(prefix="mkso"))
    made = Machine(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "case",
    [
        Case("flask_guestbook", "secret_key", "/guests"),
        Case("django_orders", "django_secret_key", ""),
        *(Case("fastapi_notes", "notes_api_key", "/notes", server) for server in SERVERS),
    ],
    ids=lambda case: f"{case.application}-{case.server}",
)
def test_the_page_leads_to_a_site_that_answers(
    case: Case,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SECRET_KEY", "DJANGO_SECRET_KEY", "NOTES_API_KEY"):
        monkeypatch.setenv(name, "only for the import")
    source = Path(shutil.copytree(APPLICATIONS / case.application, tmp_path / "source"))
    if case.application == "flask_guestbook":
        with (source / "guestbook.py").open("a") as code:
            code.write(GUESTS)
    words = ["--name", "shop", "--host", HOST, "--mail", "ops@example.test", "--python", sys.executable]
    assert main(["init", str(source), *words, "--yes"]) == 0
    settings = source / "deploy.toml"
    chosen = f'[app]\nserver = "{case.server}"\n'
    settings.write_text(deployed(OWN, chosen, base=settings.read_text("utf-8")), "utf-8")
    _render(source, case.secret)
    kit = machine.path("/root/kit")
    shutil.copytree(source, kit)
    machine.run(
        "sh",
        "-c",
        "cd /root/kit && git init -q && git add . && git -c user.name=x -c user.email=x@x commit -qm x",
    )
    assert not re.search(r"(?m)^(secrets|out)/", machine.run("git", "-C", "/root/kit", "ls-files"))
    for line in commands():
        machine.run("sh", "-c", f"cd /root/kit && {line}")
        if line.startswith("git archive"):
            _make_version(machine, 1)
    unit = machine.show("shop@blue.service", "ActiveState", "NRestarts")
    assert unit == {"ActiveState": "active", "NRestarts": "0"}, machine.journal("shop@blue.service")
    # Whatever a client says, the application knows the real one; TLS is that of the placeholder.
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1"]
    said = machine.run(*ask, "-H", "X-Forwarded-For: 203.0.113.9", f"https://{HOST}/who")
    assert said == "127.0.0.1 https"
    status = machine.run("mks-deploy", "status")
    assert "ready" in status
    assert "leaves the host: upkeep.smtp_host would mail them to ops@example.test" in status
    for part in ("backup", "logrotate"):
        machine.run("systemctl", "start", f"shop-{part}.service")
    assert list(machine.path("/var/backups/shop").glob("2*/complete"))
    # The account of the site reads the secret through systemd alone, and no other account does.
    value = (source / "secrets" / case.secret).read_text().strip()
    assert value not in machine.run("systemctl", "show", "shop@blue.service")
    assert "Permission denied" in machine.run(
        "cat", f"/etc/shop/credentials/{case.secret}", account="shop", check=False
    )
    if case.application == "django_orders":
        assert "no issues" in machine.run("mks-deploy", "app", "python", "manage.py", "check")
    if case.application == "flask_guestbook":
        _secrets_are_encrypted_and_back(machine, settings.read_text("utf-8"), value)
    _nothing_is_lost(machine, case.form, SERVERS[case.server])
    if case.application == "flask_guestbook":
        _guests_are_kept(machine)


# What the lines in deploy.toml advise, and a page of its own.
STARTED = """
DEBUG = False
ALLOWED_HOSTS = ["shop.example.test"]
STATIC_ROOT = BASE_DIR / "static"
"""
# Of a browser without scripts: the form of the admin, its styles, and a page behind it.
SIGN_IN = """
import http.cookiejar, re, ssl, sys, urllib.parse, urllib.request

def connect(address, *rest, _connect=__import__("socket").create_connection):
    return _connect(("127.0.0.1", 443), *rest)

__import__("socket").create_connection = connect
opener = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
)

def page(path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request("https://shop.example.test" + path, data, {"Referer": "https://shop.example.test"})
    return opener.open(request, timeout=60).read().decode()

form = page("/admin/login/?next=/admin/")
style = re.search(r'href="(/static/admin/css/base[^"]*)"', form)[1]
assert "body" in page(style)
token = re.search(r'name="csrfmiddlewaretoken" value="(.*?)"', form)[1]
inside = page("/admin/login/?next=/admin/", username="ann", password="open sesame", csrfmiddlewaretoken=token)
assert "Site administration" in inside, inside
"""
ANN = (
    "from django.contrib.auth import get_user_model; "
    "get_user_model().objects.create_superuser('ann', 'ann@example.test', 'open sesame')"
)


def test_what_startproject_makes_leads_to_a_sign_in(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    subprocess.run([sys.executable, "-m", "django", "startproject", "portal", "."], cwd=source, check=True)
    (source / "requirements.txt").write_text("django\nmks-deploy\n")
    with (source / "portal/settings.py").open("a") as settings:
        settings.write(STARTED)
    words = ["--name", "shop", "--host", HOST, "--mail", "ops@example.test", "--python", sys.executable]
    assert main(["init", str(source), *words, "--yes"]) == 0
    text = (source / "deploy.toml").read_text("utf-8")
    read = read_settings(text)
    assert (read.stores.sqlite, read.app.static) == ("db.sqlite3", "static")
    # It has no other page.
    own = '[edge]\nipv6 = false\n[app]\nlive = "/admin/login/"\nready = "/admin/login/"\n'
    (source / "deploy.toml").write_text(deployed(own, base=text), "utf-8")
    _render(source, "")
    shutil.copytree(source, machine.path("/root/kit"))
    for version in (1, 2):
        folder = f"/opt/shop/versions/{version}"
        shutil.copytree(source, machine.path(folder))
        _make_version(machine, version)
        for command in read.app.build:
            machine.run("sh", "-c", f"cd {folder} && venv/bin/{' '.join(command)}")
        if version == 1:
            machine.run(
                "sh", "-c", f"cd /root/kit && {folder}/venv/bin/mks-deploy apply --version 1 --no-certificate"
            )
            machine.run("mks-deploy", "app", "python", "manage.py", "shell", "-c", ANN)
        else:
            machine.run("mks-deploy", "release", "2", "--migrate")
        machine.run(f"{PREFIX}/python/bin/python3", "-c", SIGN_IN)


def _guests_are_kept(machine: Machine) -> None:
    """Both versions have written to one database, which only the site reads; the backup holds it."""
    kept = "/var/lib/shop/uploads/private/database/guests.db"
    assert machine.path(kept).parent.stat().st_mode & 0o777 == 0o700
    for version in ("1", "2"):
        assert str(machine.path(f"/opt/shop/versions/{version}/guests.db").readlink()) == kept
    machine.run("systemctl", "start", "shop-backup.service")
    newest = max(machine.path("/var/backups/shop").glob("2*/complete")).parent
    with tarfile.open(newest / "uploads.tar.gz") as packed:
        packed.extract("private/database/guests.db", machine.path("/root"), filter="data")
    count = (
        "import sqlite3, sys\n"
        "print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM guests').fetchone()[0])"
    )
    python = f"{PREFIX}/python/bin/python3"
    numbers = {
        int(machine.run(python, "-c", count, each)) for each in (kept, "/root/private/database/guests.db")
    }
    assert len(numbers) == 1
    assert numbers.pop() > 10


def _secrets_are_encrypted_and_back(machine: Machine, text: str, value: str) -> None:
    """Each way by applying again; services and commands read them as before."""
    stored = machine.path("/etc/shop/credentials/secret_key")
    for key in ("host", ""):
        changed = deployed(f'[host]\nencrypt_secrets = "{key}"\n', base=text)
        machine.write("/root/kit/deploy.toml", changed)
        apply = "/opt/shop/versions/1/venv/bin/mks-deploy apply --version 1 --no-certificate --no-migrate"
        machine.run("sh", "-c", f"cd /root/kit && {apply}")
        assert (value.encode() in stored.read_bytes()) is (key == "")
        machine.run("systemctl", "restart", "shop@blue.service")
        assert "ready" in machine.run("mks-deploy", "status")
        read = "import os; print(os.environ['SECRET_KEY'])"
        assert machine.run("mks-deploy", "app", "python", "-c", read).strip() == value
        assert not list(machine.path("/run").glob("shop-secrets-*"))
    refused = deployed('[host]\nencrypt_secrets = "tpm2"\n', base=text)
    machine.write("/root/kit/refused.toml", refused)
    said = machine.run("sh", "-c", f"cd /root/kit && {apply} --settings refused.toml", check=False)
    assert said.endswith('"tpm2": systemd-creds cannot encrypt on this host\n')
    assert value.encode() in stored.read_bytes()


def _make_version(machine: Machine, version: int) -> None:
    machine.make_environment(f"/opt/shop/versions/{version}")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"/opt/shop/versions/{version}/venv/lib/{python}/site-packages"
    machine.write(f"{packages}/own.pth", f"/opt/shop/versions/{version}/src\n")
    # The package of this name is uvicorn's module, moved out of it.
    machine.write(f"{packages}/uvicorn_worker.py", "from uvicorn.workers import UvicornWorker\n")


def _nothing_is_lost(machine: Machine, form: str, server: Server) -> None:
    """Reload, restart, release and rollback, while clients open a connection for each request."""
    machine.run("mkdir", "/opt/shop/versions/2")
    machine.run("sh", "-c", "cd /root/kit && git archive HEAD | tar -x -C /opt/shop/versions/2")
    _make_version(machine, 2)
    python = f"{PREFIX}/python/bin/python3"
    clients = machine.background(python, "-c", CLIENTS, variables={"SITE": HOST, "FORM": form})
    answered = machine.path("/run/answered")
    wait_until(answered.exists, timeout=30, what="the first answers")
    if server.reloads:
        machine.run("systemctl", "reload", "shop@blue.service")
        machine.run("systemctl", "restart", "shop@blue.service")
    else:
        assert machine.show("shop@blue.service", "CanReload") == {"CanReload": "no"}
    for words, slot in (
        (["restart"], "* green  1"),
        (["release", "2"], "* blue   2"),
        (["restart"], "* green  2"),
        (["rollback"], "* blue   1"),
    ):
        machine.run("mks-deploy", *words)
        assert slot in machine.run("mks-deploy", "status")
    machine.write("/run/over", "")
    assert clients.wait(90) == 0, machine.path("/run/lost").read_text()
    assert int(answered.read_text()) > 100


def _render(source: Path, secret: str) -> None:
    given = ["--settings", str(source / "deploy.toml"), "--secrets", str(source / "secrets")]
    assert main(["secrets", *given]) == 0
    if not (file := source / "secrets" / secret).exists():
        file.write_text("k-0123456789abcdef0123\n")
        file.chmod(0o600)
    assert main(["render", *given, "--out", str(source / "out")]) == 0
