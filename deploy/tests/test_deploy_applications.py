"""Applications that are not ours: found, rendered, and served by the real servers as they are rendered."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from deploy_host import HOST, Answer, Host
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations.backup import backup, holds_database, restore
from mks_deploy.operations.host_steps import ready
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import bindings, credential_errors, make_missing, used_credentials
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from testbed.polling import wait_until
from testbed.process import ServerProcess
from testbed.services import program

APPLICATIONS = Path(__file__).parent / "apps"
MOST_EXPOSURE = 1.5


@dataclass(frozen=True)
class Application:
    """One of them, and what its pages do."""

    folder: str
    name: str
    kind: str
    form: str
    field: str
    leads_to: str
    who: str
    workers: str = "2"

    @property
    def source(self) -> Path:
        return APPLICATIONS / self.folder


FLASK = Application("flask_guestbook", "flask-guestbook", "wsgi", "/sign", "name", "/", "{client} https")
DJANGO = Application(
    "django_orders", "django-orders", "wsgi", "/", "item", "/ordered/nail/", "{client} https"
)
FASTAPI = Application(
    "fastapi_notes", "team-notes", "asgi", "/notes", "text", "/notes/nail", "{client} https"
)
ALL = (FLASK, DJANGO, FASTAPI)
HARDENED = Application("hardened_notes", "hardened-notes", "wsgi", "/", "note", "", "", "1")

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "snippets" / "tutorial").glob("*_app.py"))

each = pytest.mark.parametrize("application", ALL, ids=lambda application: application.folder)


_written: dict[str, str] = {}


def settings_of(application: Application, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``mks-deploy init`` writes for it; once, since it starts the application to try the target."""
    if application.name not in _written:
        file = folder / f"{application.name}.toml"
        words = ["init", str(application.source), "--yes", "--host", HOST, "--mail", "ops@example.test"]
        assert main([*words, "--python", sys.executable, "--out", str(file)]) == 0, capsys.readouterr().err
        _written[application.name] = file.read_text(encoding="utf-8")
    return _written[application.name]


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the applications need to be imported."""
    for name in ("SECRET_KEY", "DJANGO_SECRET_KEY", "NOTES_API_KEY"):
        monkeypatch.setenv(name, "only for the import")


class Served:
    """An application behind nginx, as rendered from what ``init`` wrote."""

    def __init__(self, application: Application, text: str, certificates: Any) -> None:
        self.application = application
        source = Path(shutil.copytree(application.source, self._source(application)))
        self.host = Host(
            certificates, name=application.name, base=text, source=source, workers=application.workers
        )
        self.host.options["app"] = ""
        self.settings = read_settings(self.host.settings_text(f'[variables]\nALLOWED_HOSTS = "{HOST}"\n'))
        self.server: ServerProcess | None = None

    @staticmethod
    def _source(application: Application) -> Path:
        import tempfile

        return Path(tempfile.mkdtemp(prefix="mksa")) / Path(application.folder).name

    def start(self) -> None:
        self.host.render()
        secrets = self.host.path("credentials")
        make_missing(secrets, self.settings)
        if (file := secrets / "notes_api_key").parent.is_dir() and self.application is FASTAPI:
            file.write_text("k-0123456789abcdef\n")
            file.chmod(0o600)
        assert list(credential_errors(secrets, self.settings)) == []
        self.server = self.host.start_application(**self.variables(secrets))
        self.host.start_nginx()
        wait_until(lambda: ready(self.settings, "blue"), timeout=60, what="the application")

    def variables(self, secrets: Path) -> dict[str, str]:
        """The environment of the unit: the rendered file, and what ``LoadCredential`` adds."""
        text = (self.host.path("config") / f"{self.application.name}.env").read_text()
        given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
        for credential in used_credentials(secrets, self.settings):
            for secret in bindings(credential, self.settings):
                given[f"{secret.variable}_FILE"] = str(secrets / secret.file)
        names = [secret.variable for secret in self.settings.secrets if secret.as_value]
        given["ALLOWED_HOSTS"] = HOST
        # Nothing of this process may help: a unit has only what is rendered.
        return {**dict.fromkeys(names, ""), **given, "DEPLOY_SECRET_VALUES": ",".join(names)}

    def stop(self) -> None:
        self.host.stop()
        assert self.host.source is not None
        shutil.rmtree(self.host.source.parent, ignore_errors=True)

    def get(self, path: str, **fields: str) -> Answer:
        answer = self.host.ask(path, fields=fields)
        assert answer is not None
        return answer


@pytest.fixture(scope="module")
def served(certificates: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start an application once for all tests of it."""
    running: dict[str, Served] = {}

    def of(application: Application, capsys: pytest.CaptureFixture[str]) -> Served:
        if application.name not in running:
            text = settings_of(application, tmp_path_factory.mktemp("init"), capsys)
            made = Served(application, text, certificates)
            try:
                made.start()
            except BaseException:
                log = made.host.folder / "gunicorn-blue.out"
                print(log.read_text()[-3000:] if log.exists() else "")  # noqa: T201 - for the report
                made.stop()
                raise
            running[application.name] = made
        return running[application.name]

    yield of
    for each_one in running.values():
        each_one.stop()


# --- rendered -----------------------------------------------------------------------------------


@each
def test_systemd_takes_every_unit_and_little_is_exposed(
    application: Application, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(name=application.name, base=settings_of(application, tmp_path, capsys))
    folder = tmp_path / "units"
    folder.mkdir()
    try:
        for file in render(read_settings(host.settings_text()), Installed()):
            if file.path.startswith("etc/systemd/system/"):
                text = re.sub(r"/usr/bin/certbot|/usr/sbin/logrotate", "/bin/true", file.text)
                (folder / Path(file.path).name).write_text(text)
                for command in re.findall(r"(?m)^Exec\w+=\+?(\S+)", text):
                    stub = Path(command.replace("%i", "test_instance"))
                    stub.parent.mkdir(parents=True, exist_ok=True)
                    if not stub.exists():
                        shutil.copy("/bin/true", stub)
        units = sorted(folder.iterdir())
        names = {unit.name.replace(application.name, "") for unit in units}
        assert {"@.service", "@.socket", "-backup.timer", "-watch.service"} <= names
        assert not {"-worker.service", "-beat.service", "-base.service"} & names
        assert ("-migrate@.service" in names) == (application is DJANGO)
        done = subprocess.run(
            [program("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        words = [program("systemd-analyze"), "security", "--offline=yes", "--no-pager"]
        unit = folder / f"{application.name}@.service"
        output = subprocess.run([*words, unit], capture_output=True, text=True, check=True).stdout
        found = re.search(r"Overall exposure level for \S+ ([0-9.]+)", output)
        assert found is not None
        assert float(found[1]) <= MOST_EXPOSURE
        assert "postgresql" not in unit.read_text()
        assert "MKS_SECRET_KEYS" not in unit.read_text()
    finally:
        host.stop()


@each
def test_containers_have_what_it_needs_and_no_more(
    application: Application, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import kubernetes_validate

    settings = read_settings(settings_of(application, tmp_path, capsys))
    files = {file.path: file.text for file in render(settings, Installed())}
    compose = yaml.safe_load(files["docker/compose.yml"])
    migrates = {"migrate"} if settings.app.migrate else set()
    assert compose["services"].keys() == {"application", "backup", *migrates}
    assert compose["secrets"].keys() == {secret.file for secret in settings.secrets}
    assert f'"http://127.0.0.1:8000{settings.app.ready}", "{HOST}"' in files["docker/Dockerfile"]
    installs = "pip install --no-deps --no-build-isolation ." in files["docker/Dockerfile"]
    assert installs == (application is FASTAPI)
    compile(files["docker/gunicorn.conf.py"], "gunicorn.conf.py", "exec")
    for path, text in files.items():
        if path.startswith("kubernetes/") and path.endswith(".yaml"):
            for document in yaml.safe_load_all(text):
                if ".k8s.io/" not in document["apiVersion"].replace("networking.k8s.io/v1", "") and document[
                    "kind"
                ] not in {"Kustomization", "Gateway", "HTTPRoute"}:
                    kubernetes_validate.validate(document, "1.34", strict=True)


def test_an_exception_from_the_sandbox_is_written_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox = """
[sandbox]
write_execute = "numba compiles at run time"
chown = "exports belong to the group of the office"
whole_proc = "psutil reads the memory of the host"
[sandbox.write_paths]
"/srv/exports" = "the office fetches files there"
"""
    settings = read_settings(settings_of(DJANGO, tmp_path, capsys) + sandbox)
    files = {Path(file.path).name: file.text for file in render(settings, Installed())}
    for unit in ("django-orders@.service", "django-orders-migrate@.service"):
        for lines in (
            "# numba compiles at run time\nMemoryDenyWriteExecute=no\n",
            "# exports belong to the group of the office\nSystemCallFilter=@chown\n",
            "# psutil reads the memory of the host\nProcSubset=all\n",
            "# the office fetches files there\nReadWritePaths=/srv/exports\n",
        ):
            assert lines in files[unit].partition("SystemCallFilter=~@privileged")[2]
    assert "/srv/exports" not in files["django-orders-backup.service"]


# --- served -------------------------------------------------------------------------------------


@pytest.mark.nginx
@each
def test_nginx_takes_the_configuration(
    application: Application, served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    host = served(application, capsys).host
    done = subprocess.run(host.nginx_command("-t"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.nginx
@each
def test_a_form_is_posted_and_the_client_is_known(
    application: Application, served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site = served(application, capsys)
    page = site.get("/")
    assert page.status == 200, page.body
    cookies = "; ".join(value.partition(";")[0] for value in page.all("Set-Cookie"))
    token = re.search(rb'csrfmiddlewaretoken" value="(\w+)"', page.body)
    fields = {application.field: "nail", "csrfmiddlewaretoken": token[1].decode() if token else ""}
    body = urlencode(fields).encode()
    answer = site.host.say_with(
        {
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(body)),
            "Cookie": cookies,
            "Origin": f"https://{HOST}:{site.host.https}",
        },
        application.form,
        body,
    )
    assert answer is not None
    assert answer.status in {302, 303}, answer.body
    assert answer.one("Location").removeprefix(f"https://{HOST}") == application.leads_to
    # Whatever a client claims, the application is told who it is.
    who = site.get("/who", **{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"})
    assert who.body.decode() == application.who.format(client="127.0.0.1")
    assert who.one("X-Content-Type-Options") == "nosniff"


@pytest.mark.nginx
@each
def test_health_is_for_this_machine_and_unknown_names_get_nothing(
    application: Application, served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site = served(application, capsys)
    assert site.get(site.settings.app.ready).status == 200
    assert ready(site.settings, "blue")
    assert not ready(site.settings, "green")
    from_outside = site.host.ask(site.settings.app.ready, client="127.0.0.9")
    assert from_outside is not None
    assert from_outside.status == 403
    assert site.host.ask("/", host="unknown.example", sni="unknown.example") is None


def post_note(site: Served) -> tuple[Answer, Answer]:
    """Send the form of the tutorials, with its token: from its own page, and from another site."""
    page = site.get("/")
    token = re.search(rb'name="(csrf\w+)" value="([^"]+)"', page.body)
    assert token is not None, page.body
    cookies = "; ".join(value.partition(";")[0] for value in page.all("Set-Cookie"))
    body = urlencode({"note": "nail", token[1].decode(): token[2].decode()}).encode()
    fields = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(body)),
        "Cookie": cookies,
    }
    # The port as browsers send it: none for 443, the port of a site.
    own = site.host.say_with({**fields, "Origin": f"https://{HOST}:{site.host.https}"}, "/", body)
    other = site.host.say_with({**fields, "Origin": "https://other.example"}, "/", body)
    assert own is not None
    assert other is not None
    return own, other


@pytest.mark.nginx
def test_an_application_that_uses_the_library_needs_no_settings_of_its_own(
    served: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKS_ENV", "development")  # for the import alone
    monkeypatch.delenv("MKS_VERIFY_DEPLOY", raising=False)
    site = served(HARDENED, capsys)
    assert site.settings.app.hardened
    assert (site.host.path("credentials") / "secret_keys").exists()
    answer, stranger = post_note(site)
    assert answer.body == b"saved nail of 127.0.0.1 by https"
    assert answer.one("Strict-Transport-Security")
    assert stranger.status == 403
    # Every variable of the unit is one that the library knows.
    log = (site.host.folder / "gunicorn-blue.out").read_text()
    assert "unknown variable" not in log, log[-3000:]


@pytest.mark.slow
@pytest.mark.nginx
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda file: file.stem)
def test_a_tutorial_takes_a_form_in_production(
    tutorial: Path,
    certificates: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MKS_ENV", "development")  # for the import alone
    name = tutorial.stem.replace("_", "-")
    source = tmp_path / name
    source.mkdir()
    shutil.copy(tutorial, source / "app.py")
    (source / "requirements.txt").write_text(f"mks-hardening\n{tutorial.stem.removesuffix('_app')}\n")
    application = Application(str(source), name, "", "/", "note", "", "", "1")
    site = Served(application, settings_of(application, tmp_path, capsys), certificates)
    try:
        site.start()
        answer, stranger = post_note(site)
        assert answer.body.startswith(b"saved 4 ")
        assert answer.one("Strict-Transport-Security")
        assert stranger.status == 403
    finally:
        site.stop()


def test_no_secret_stands_where_every_account_reads(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site = served(FLASK, capsys)
    secret = (site.host.path("credentials") / "secret_key").read_text().strip()
    for file in site.host.root.rglob("*"):
        assert not file.is_file() or secret not in file.read_text(errors="replace"), file
    assert site.server is not None
    assert secret.encode() not in Path(f"/proc/{site.server.pid}/environ").read_bytes()
    assert secret.encode() not in Path(f"/proc/{site.server.pid}/cmdline").read_bytes()


@pytest.mark.nginx
@each
def test_a_reload_under_load_loses_no_request(
    application: Application, served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site = served(application, capsys)
    wrong: list[str] = []
    answered: list[int] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                answer = site.host.ask("/slow")
            except OSError as error:
                wrong.append(repr(error))
                continue
            answered.append(1)
            if answer is None or answer.status != 200:
                wrong.append(repr(answer))

    site.host.patience = 60.0
    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    try:
        for _ in range(2):
            workers = _children(site.server.pid)
            before = len(answered)
            os.kill(site.server.pid, signal.SIGHUP)
            wait_until(
                lambda workers=workers: not workers & _children(site.server.pid),
                timeout=60,
                what="new workers",
            )
            wait_until(lambda before=before: len(answered) > before + 50, timeout=60, what="further answers")
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert wrong == []
    assert len(answered) > 100


def _children(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


# --- operated -----------------------------------------------------------------------------------


def test_without_a_database_files_alone_are_backed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import UTC, datetime

    host = Host(name=FLASK.name, base=settings_of(FLASK, tmp_path, capsys))
    try:
        settings = read_settings(host.settings_text())
        uploads = host.path("state") / "uploads"
        uploads.mkdir()
        (uploads / "photo").write_bytes(b"pixels")
        host.path("backups").mkdir()
        made = backup(settings, None, now=datetime(2026, 11, 28, tzinfo=UTC), keys=None)
        assert not holds_database(made)
        assert restore(made, None, uploads=tmp_path / "back") == {}
        assert (tmp_path / "back/photo").read_bytes() == b"pixels"
        assert not (made / "database.dump").exists()
    finally:
        host.stop()


MANAGE = """
import os, pathlib, sys
variables = {name: value for name, value in os.environ.items() if name.startswith(("DJANGO_", "MAIL_"))}
secret = pathlib.Path(variables.pop("MAIL_PASSWORD_FILE"))
print([os.path.samefile(".", sys.argv[1]), variables, [secret.read_text() for _ in range(2)]])
"""


def test_a_command_of_the_application_runs_as_its_unit_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = settings_of(DJANGO, tmp_path, capfd)
    own = '[secrets]\nMAIL_PASSWORD = "file"\n[variables]\nDJANGO_SIZE = "3"\n'
    host = Host(name=DJANGO.name, base=deployed(own, base=base))
    try:
        host.render()
        version = host.path("releases") / "versions" / "1"
        (version / "venv/bin").mkdir(parents=True)
        (version / "venv/bin/python").symlink_to(sys.executable)
        (version / "manage.py").write_text(MANAGE)
        (host.path("releases") / "current").symlink_to("versions/1")
        secrets = host.path("credentials")
        secrets.mkdir()
        for name, value in (("mail_password", "p-4711"), ("django_secret_key", "k-4711")):
            (secrets / name).write_text(f"{value}\n")
        file = tmp_path / "deploy.toml"
        file.write_text(host.settings_text())
        given = ["--settings", str(file), "--secrets", str(secrets)]
        capfd.readouterr()
        assert main(["app", *given, "python", "manage.py", str(version)]) == 0
        variables = {
            "DJANGO_SETTINGS_MODULE": "orders.settings.production",
            "DJANGO_SIZE": "3",
            "DJANGO_SECRET_KEY": "k-4711",
        }
        said = capfd.readouterr().out
        assert ast.literal_eval(said) == [True, variables, ["p-4711", "p-4711"]]
    finally:
        host.stop()


def test_a_program_gets_secrets_as_values(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    words = [sys.executable, "-m", "mks_deploy.secret_values", "python", "-c"]
    code = "import os; print(os.environ['API_KEY'], os.environ.get('OTHER'))"
    done = subprocess.run(
        [*words, code],
        env={**os.environ, "DEPLOY_SECRET_VALUES": "API_KEY,OTHER", "API_KEY_FILE": str(tmp_path / "key")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "from a file None\n"
