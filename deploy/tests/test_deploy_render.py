"""Settings, secrets and the renderer: every error at once, nothing written, equal input gives equal files."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_settings import as_toml, deployed
from mks_deploy.cli import main
from mks_deploy.rendering import render
from mks_deploy.settings import value_types
from mks_deploy.settings.credentials import CREDENTIALS, credential_errors, make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, example, find_settings_file, read_settings
from mks_deploy.versions import Installed, parse_nginx, parse_version
from mks_hardening.db import plan_pool
from mks_hardening.settings import HardeningSettings, variables

SMALL = '[site]\nhosts = ["a.example"]\n[tls]\nemail = "o@a.example"\n[upkeep]\nalert_mail = "o@a.example"\n'
NEW = Installed((1, 26, 3), (3, 5, 7))
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def settings(**tables: str) -> Settings:
    """The small settings with further lines in some tables."""
    return read_settings(text(**tables))


def text(**tables: str) -> str:
    return deployed(SMALL, *(f"[{name}]\n{lines}\n" for name, lines in tables.items()))


def rendered(made: Settings, installed: Installed = NEW) -> dict[str, str]:
    return {file.path: file.text for file in render(made, installed)}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    make_missing(folder, settings())
    return folder


# --- settings ---------------------------------------------------------------------------------


def test_the_example_is_whole_and_shows_the_defaults() -> None:
    opened = re.sub(r"(?m)^# (\w+ = )", r"\1", example())
    unset = {"smtp_host", "smtp_user", "repository"}
    every_default = {
        name: {key: value for key, value in table.items() if key not in unset}
        for name, table in tomllib.loads(opened).items()
    }
    assert read_settings(example()).site.hosts == ("shop.example.jp",)
    placeholders = (
        "app",
        "paths",
        "tasks",
        "tls",
        "image",
        "variables",
        "secrets",
    )  # their examples are no defaults, or another choice
    made = {name: table for name, table in every_default.items() if name not in placeholders}
    assert read_settings(example()) == read_settings(as_toml(made) + _REQUIRED)


_REQUIRED = """
[app]
kind = "wsgi"
target = "shop.wsgi:application"
needs = ["postgresql"]
[tls]
email = "ops@example.jp"
"""


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        ({"site": 'nawe = "x"'}, "site.nawe is unknown; did you mean name?"),
        ({"stie": 'name = "x"'}, "[stie] is unknown; did you mean site?"),
        ({"site": 'name = "Big"'}, "site.name must be 3 to 24 of a-z"),
        ({"site": 'redirect_hosts = ["a.example"]'}, "site.redirect_hosts names a.example"),
        ({"site": 'redirect_hosts = ["b.example:80"]'}, "site.redirect_hosts must be a host name"),
        ({"site": 'redirect_hosts = ["b.example;return 200"]'}, "site.redirect_hosts must be a host name"),
        ({"app": 'target = "a b:c"'}, "app.target must be module:object"),
        ({"release": "keep = -1"}, "release.keep must be a whole number from 0"),
        ({"release": 'before = ["python check.py"]'}, "release.before must be a list of words"),
        ({"release": 'before = [["sh", "-c", "rm $HOME"]]'}, "release.before must be a list of words"),
        (
            {"release": 'after = [["/bin/sh"]]'},
            "release.after must be a list of words that begins with a program",
        ),
        ({"app": 'target = "shop"'}, "app.target must be module:object"),
        ({"app": 'kind = "cgi"'}, "app.kind must be wsgi or asgi"),
        (
            {"app": 'server = "uvicorn"'},
            "app.server must be gunicorn or granian with app.kind = wsgi: uvicorn serves ASGI here",
        ),
        (
            {"app": 'server = "uwsgi"'},
            "app.server must be gunicorn or gunicorn-uvicorn or uvicorn or hypercorn or granian",
        ),
        ({"app": 'needs = ["mysql"]'}, "app.needs must be postgresql or redis"),
        ({"app": 'static = "../etc"'}, "app.static must be a path below the source tree"),
        ({"app": 'static = "."'}, "app.static must not name a hidden folder or the whole source tree"),
        ({"app": 'static = "shop/.git"'}, "app.static must not name a hidden folder"),
        ({"app": 'static = "/srv/static"'}, "app.static must be a path below the source tree"),
        ({"app": 'ready = "readyz"'}, "app.ready must be a path such as /healthz"),
        ({"app": 'ready = "/(x|y)"'}, "app.ready must be a path such as /healthz"),
        ({"app": 'migrate = "flask db upgrade"'}, "app.migrate must be a list of words"),
        ({"app": 'migrate = ["flask", "a b"]'}, "app.migrate must be a list of words"),
        ({"app": 'migrate = ["/bin/sh", "-c"]'}, "app.migrate must be a list of words that begins with"),
        ({"app": 'host_variables = ["PATH"]'}, "app.host_variables must be MKS_UPLOADS or"),
        ({"app": "[app.variables]\nMKS_X = 3"}, "app.variables must be a table such as"),
        ({"app": 'kind = "asgi"', "edge": 'mode = "direct"'}, 'edge.mode must be "nginx" with app.kind'),
        ({"secrets": 'smtp = "file"'}, "secrets.smtp must be the name of a variable"),
        ({"secrets": 'API_KEY = "hunter2"'}, 'secrets.API_KEY must be "file" or "variable"'),
        ({"secrets": 'XY = {as = "file", from = "passwd"}'}, 'secrets.XY must be "file" or "variable"'),
        ({"app": "needs = []", "secrets": 'DATABASE_URL = "file"'}, "secrets.DATABASE_URL needs"),
        ({"secrets": 'LEVEL = "file"', "variables": 'LEVEL = "x"'}, "variables.LEVEL is among the [secrets]"),
        ({"variables": 'SECRET_KEY = "x"'}, "variables.SECRET_KEY is a secret"),
        ({"variables": 'BROKER = "amqp://u:pw@mq/"'}, "variables.BROKER is a secret"),
        ({"variables": 'lower = "x"'}, "variables.lower is unknown"),
        ({"sandbox": 'chown = "yes"'}, "sandbox.chown must be a reason of 10 to 200 characters"),
        (
            {"sandbox": 'write_paths = {"srv" = "the scanner writes there"}'},
            "sandbox.write_paths must be an abs",
        ),
        ({"edge": 'sign_in_paths = ["/a b"]'}, "edge.sign_in_paths must be a path such as"),
        ({"image": 'files = ["../secrets"]'}, "image.files must be a path below the source tree"),
        ({"paths": 'state = "relative"'}, "paths.state must be an absolute path"),
        ({"paths": 'state = "/var/../etc"'}, "paths.state must be an absolute path"),
        ({"paths": 'state = "/var/x; include y"'}, "paths.state must be an absolute path"),
        ({"paths": "state = '/var/%n'"}, "paths.state must be an absolute path"),
        ({"edge": 'http_port = "80"'}, "edge.http_port must be a whole number"),
        ({"edge": "http_port = true"}, "edge.http_port must be a whole number"),
        ({"edge": "http_port = 8080"}, "edge.http_port must be 80 with tls.source = acme"),
        ({"edge": "status_port = 443"}, "edge.status_port and edge.https_port are the same port"),
        ({"edge": 'body_limit = "16"'}, "edge.body_limit must be a size"),
        ({"edge": 'body_limit = "2g"'}, "edge.body_limit must be a size"),
        ({"edge": 'read_timeout = "60s"'}, "edge.read_timeout must be longer than gunicorn.timeout"),
        ({"edge": "read_timeout = 75"}, "edge.read_timeout must be a duration with its unit"),
        ({"edge": 'proxies_in_front = ["1.2.3.4/8"]'}, "edge.proxies_in_front must be a network"),
        ({"edge": 'proxies_in_front = ["0.0.0.0/0"]'}, "must not hold 0.0.0.0/0: any client could write"),
        ({"edge": 'proxies_in_front = ["::/0"]'}, "edge.proxies_in_front must not hold ::/0"),
        ({"stores": 'database_name = "all"'}, "stores.database_name must not be all, which means"),
        ({"stores": 'database_name = "postgres"'}, "stores.database_name must not be postgres"),
        ({"edge": 'proxies_in_front = ["10.0.0.0/8", "10.0.0.0/8"]'}, "a list without repetition"),
        (
            {"edge": 'offices = { "0.0.0.0/0" = 600 }'},
            "must not hold 0.0.0.0/0: an office is an IPv4 network from",
        ),
        ({"edge": 'offices = { "10.0.0.0/8" = 600 }'}, "an office is an IPv4 network from /16 to /32"),
        ({"edge": 'offices = { "2001:db8::1/128" = 600 }'}, "an office is an IPv6 network from /32 to /64"),
        ({"edge": 'offices = { "203.0.113.9/29" = 600 }'}, "edge.offices must be a network such as"),
        ({"edge": 'offices = { "203.0.113.8/29" = 59 }'}, "a whole number from 60 to 6000"),
        ({"edge": 'offices = { "203.0.113.8/29" = true }'}, "a whole number from 60 to 6000"),
        ({"edge": 'offices = ["203.0.113.8/29"]'}, "edge.offices must be a table"),
        (
            {"edge": 'offices = { "203.0.113.8" = 60, "203.0.113.8/32" = 90 }'},
            "edge.offices names a network twice",
        ),
        (
            {"edge": 'offices = { "203.0.113.8" = 60 }\nsign_in_paths = []'},
            "edge.offices needs edge.sign_in_paths",
        ),
        ({"edge": "burst = 1"}, "edge.burst must not be below"),
        *(
            ({"edge": f"content_security_policy = '''{policy}'''"}, "edge.content_security_policy must be a")
            for policy in (
                "default-src self",
                "img-src *; IMG-SRC 'none'",
                "default-src 'self', default-src *",
                "default-src 'nonce-abc'",
                "default-source 'self'",
                'default-src *"; return 200 "x',
                "default-src $http_host",
                "default-src *\\",
                "default-src *\ndefault-src 'none'",
                "default-src *é",
            )
        ),
        ({"media": 'url = "/media"'}, "media.url must end with a slash"),
        ({"media": 'url = "/"'}, "media.url must end with a slash"),
        ({"media": 'url = "/static/"'}, "media.url must not be /static/"),
        ({"media": 'folder = "../media"'}, "media.folder must be a path below the source tree"),
        ({"media": 'url = "/media/"', "edge": 'mode = "direct"'}, 'edge.mode must be "nginx" with media.url'),
        ({"edge": 'user = "www-data;"'}, "edge.user must be 3 to 24 of a-z"),
        (
            {"stores": 'statement_timeout = "60s"'},
            "gunicorn.timeout must be longer than stores.statement_timeout",
        ),
        ({"stores": "database_connections = 100"}, "need 110 database connections, more than"),
        ({"gunicorn": 'keepalive = "5s"'}, "gunicorn.keepalive must be at least 10s"),
        ({"tls": 'source = "own"'}, "tls.certificate and tls.key must be given"),
        ({"tls": 'certificate = "/a"'}, "belong to tls.source = own"),
        (
            {"tls": 'directory = "http://ca.example/dir"'},
            "tls.directory must be an address beginning with https://",
        ),
        ({"tls": 'directory = "https://u:p@ca.example/dir"'}, "without credentials"),
        ({"tls": "directory = 'https://ca.example/$(id)'"}, "tls.directory must be an address"),
        ({"tls": "hsts_preload = true\nhsts_subdomains = false"}, "tls.hsts_preload needs"),
        ({"upkeep": 'backup_at = "25:00"'}, "upkeep.backup_at must be a time of day"),
        ({"upkeep": 'backup_max_age = "2h"'}, "at least a day"),
        ({"paths": 'state = "/"'}, "paths.state must be a separate directory: / belongs to the system"),
        ({"paths": 'backups = "/var/backups"'}, "/var/backups belongs to the system"),
        ({"paths": 'logs = "/var/lib/{name}"'}, "paths.logs and paths.state are the same folder"),
        ({"paths": 'key_backups = "/var/backups/{name}/keys"'}, "must not be inside paths.backups"),
        ({"paths": 'credentials = "/var/lib/{name}/secret"'}, "must not be inside paths.state"),
    ],
)
def test_what_cannot_be_meant_is_told(tables: dict[str, str], error: str) -> None:
    with pytest.raises(DeploySettingsError) as caught:
        settings(**tables)
    assert any(error in each for each in caught.value.errors), caught.value.errors
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize("name", ["root", "postgres", "www-data", "all", "default", "peer", "replicator"])
def test_a_site_shares_no_account(name: str) -> None:
    with pytest.raises(DeploySettingsError, match=rf"deploy\.toml:\d+: site\.name must not be {name}: "):
        read_settings(deployed(SMALL).replace('name = "knowledge-system"', f'name = "{name}"'))


def test_every_line_of_the_example_may_be_used_as_it_stands() -> None:
    """Whoever takes the mark of a comment away has written the default."""
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", example())
    for option, value in (("email", "ops@example.jp"), ("certificate", ""), ("key", ""), ("smtp_user", "")):
        text = re.sub(rf"(?m)^{option} = .*$", f'{option} = "{value}"', text)
    assert read_settings(text).paths == read_settings(example()).paths


def test_a_policy_for_nginx_stays_one_word() -> None:
    """Semicolons and single quotes are nothing special between double quotes."""
    policy = "default-src 'self'; img-src 'self' data:;; upgrade-insecure-requests"
    read = settings(edge=f'content_security_policy = "{policy}"')
    assert read.edge.content_security_policy == policy.replace(";;", ";")
    files = {Path(file.path).name: file.text for file in render(read, Installed())}
    assert f'"~^[a-z]+ \\|$" "{read.edge.content_security_policy}";' in files["http.conf"]


def test_the_settings_of_the_page_about_browsers_are_valid() -> None:
    page = Path(__file__).parents[2] / "docs/en/how-to/what-browsers-get.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    read = read_settings(deployed(*blocks))
    assert read.edge.content_security_policy.startswith("default-src 'self'; form-action 'self'; ")
    assert (read.tls.hsts_max_age, read.tls.hsts_subdomains) == (730 * 86_400, True)
    assert (read.media.folder, read.media.url) == ("media", "/media/")


def test_the_database_of_sqlite_is_for_the_account_alone() -> None:
    made = settings(stores='sqlite = "db.sqlite3"', image="install = []")
    files = {Path(path).name: content for path, content in rendered(made).items()}
    folder = f"/var/lib/{made.name}/uploads/private/database"
    assert any(f"\nd {folder} 0700 " in content for content in files.values())
    assert f"\nReadWritePaths={folder}\n" in files[f"{made.name}-backup.service"]
    assert f"ln -sf {folder}/db.sqlite3" in files["Dockerfile"]


@pytest.mark.parametrize("there", [(), (".gitkeep",), (".gitkeep", "photo.jpg")])
def test_the_image_links_an_empty_folder_of_uploads_to_the_volume(
    tmp_path: Path, there: tuple[str, ...]
) -> None:
    files = rendered(settings(media='folder = "shop/media"', image="install = []"))
    dockerfile = next(content for path, content in files.items() if path.endswith("docker/Dockerfile"))
    (command,) = re.findall(r"^RUN (mkdir -p \"shop/media\".*?[^\\])$", dockerfile, re.DOTALL | re.MULTILINE)
    folder = tmp_path / "shop/media"
    for name in there:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    done = subprocess.run(["/bin/sh", "-ec", command], cwd=tmp_path, capture_output=True, check=False)
    # Files of the source would vanish behind the volume.
    assert (done.returncode == 0) is ("photo.jpg" not in there)
    assert folder.is_symlink() is ("photo.jpg" not in there)


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        *(
            (path, True)
            for path in ("/readyz", "/health/", "/internal/health-check", "/_status", "/up", "/api/v1/ping")
        ),
        *((path, False) for path in ("/", "/login/", "/shop", "/setup", "/orders/ready-made", "/statusquo")),
    ],
)
def test_a_page_that_shows_health_stays_open_to_visitors(path: str, closed: bool) -> None:  # noqa: FBT001
    files = rendered(settings(app=f'live = "{path}"\nready = "{path}"'))
    assert any("# For probes of this machine" in content for content in files.values()) == closed


def test_a_new_site_asks_browsers_for_little() -> None:
    """What they have once been told for two years cannot be taken back."""
    tls = read_settings(deployed(without=("tls",)) + '[tls]\nemail = "ops@example.jp"\n').tls
    assert (tls.hsts_max_age, tls.hsts_subdomains, tls.hsts_preload) == (300, False, False)


def test_what_is_missing_is_told() -> None:
    with pytest.raises(DeploySettingsError) as caught:
        read_settings("")
    assert [error.split(" is missing")[0] for error in caught.value.errors] == [
        "site.name",
        "site.hosts",
        "app.kind",
        "app.target",
        "app.needs",
        "upkeep.alert_mail",
    ]


def test_broken_syntax_is_told_with_its_line() -> None:
    with pytest.raises(DeploySettingsError, match=r"^deploy\.toml:2: .*line 2"):
        read_settings("[site]\nname = oh\n")


WRONG = """\
# hosts = ["x"]
[site]
name = "Big"
hosts = ["a.example"]
[app]
kind = "wsgi"
target = "a:b"
needs = []
live = \'\'\'
live = "/x"
\'\'\'
[app.variables]
MKS_X = { meaning = "m" }
[stie]
[ tls ]
  "email" = 3
[upkeep]
"""


def test_each_error_is_one_line_with_its_place() -> None:
    with pytest.raises(DeploySettingsError) as caught:
        read_settings(WRONG, file="my.toml")
    places = dict(re.findall(r"(?m)^my\.toml:(\d+): ([\[\]\w.]+) ", str(caught.value)))
    assert places == {
        "14": "[stie]",
        "3": "site.name",
        "9": "app.live",
        "12": "app.variables",
        "16": "tls.email",
        "17": "upkeep.alert_mail",
    }
    assert len(str(caught.value).splitlines()) == len(places)


def test_a_secret_has_a_file_of_its_own() -> None:
    given = """
[secrets]
API_KEY = "file"
DATABASE_PASSWORD = "variable"
SMTP_PASSWORD = "variable"
MKS_SMTP_PASSWORD = "variable"
DATABASE_URL = "variable"
REDIS_URL = { as = "variable", from = "redis_url" }
"""
    made = read_settings(deployed(given))
    assert {secret.variable: secret.file for secret in made.secrets} == {
        "API_KEY": "api_key",
        "DATABASE_PASSWORD": "app_database_password",
        "SMTP_PASSWORD": "app_smtp_password",
        "MKS_SMTP_PASSWORD": "smtp_password",
        "DATABASE_URL": "database_url",
        "REDIS_URL": "redis_url",
    }
    unit = rendered(made)["etc/systemd/system/knowledge-system@.service"]
    for line in (
        "Environment=MKS_REDIS_URL_FILE=%d/redis_url\nEnvironment=REDIS_URL_FILE=%d/redis_url\n",
        "LoadCredential=app_smtp_password:",
        "Environment=DEPLOY_SECRET_VALUES=DATABASE_PASSWORD,SMTP_PASSWORD,MKS_SMTP_PASSWORD,DATABASE_URL,REDIS_URL",
    ):
        assert line in unit
    assert unit.count("DATABASE_URL_FILE=") == 1
    assert unit.count("LoadCredential=database_url:") == 1


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_a_form_reads_or_says_what_it_wants(value: object) -> None:
    forms = (
        value_types.a_flag,
        value_types.a_host,
        value_types.a_list_of(value_types.a_host),
        value_types.a_module_object,
        value_types.a_network,
        value_types.a_number(1, 5),
        value_types.a_path,
        value_types.a_seconds(1, 5),
        value_types.a_size(1024, 2048),
        value_types.a_slug,
        value_types.a_url("https"),
        value_types.an_address,
    )
    for form in forms:
        said = _said_of(form, value)
        # What was given may be a secret in the wrong place.
        assert not (isinstance(value, str) and len(value) > 12 and value in said)


def _said_of(form: value_types.Kind[Any], value: object) -> str:
    try:
        form.read(value)
    except ValueError as error:
        return str(error)
    return ""


DANGEROUS = set(" \t\n\r;{}'\"\\$`|&<>()#%*?")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_no_form_lets_through_what_means_something_elsewhere(value: str) -> None:
    kinds = value_types
    for form in (kinds.a_host, kinds.a_path, kinds.a_slug, kinds.an_address, kinds.a_token):
        try:
            form.read(value)
        except ValueError:
            continue
        assert not set(value) & DANGEROUS


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("secret_keys", None, "secret_keys is missing"),
        ("secret_keys", "", "is empty"),
        ("secret_keys", "changeme", "number 1 is not"),
        ("secret_keys", f"{KEY},c2hvcnQ=", "number 2 is not"),
        ("secret_keys", "A" * 43 + "=", "number 1 is not random"),
        ("database_url", None, "database_url is missing"),
        (
            "database_url",
            "mysql://h/x",
            "must begin with one of postgres://, postgresql://, postgresql+asyncpg://",
        ),
        ("database_url", "postgresql://u:short@db/x", "password in the secret database_url is weak"),
        ("database_url", "postgresql://u:changethis-changethis@db/x", "is weak"),
        ("database_url", "postgresql://u@db.example/x", "has no password for a server on another machine"),
        ("database_url", "postgresql://[::1/x", "must be an address"),
        ("redis_url", None, "redis_url is missing"),
        ("redis_url", "http://h", "must begin with one of"),
        ("smtp_password", "secret", "smtp_password is weak"),
        ("slack_webhook_url", "http://hooks.example/x", "must be an https address"),
        ("frobnicator", "x", "the secret frobnicator is unknown"),
    ],
)
def test_missing_and_weak_secrets_are_told(secrets: Path, file: str, content: str | None, error: str) -> None:
    if content is None:
        (secrets / file).unlink()
    else:
        (secrets / file).write_text(content)
        (secrets / file).chmod(0o600)
    errors = list(credential_errors(secrets, settings()))
    assert len(errors) == 1, errors
    assert error in errors[0]
    if content and len(content) > 9:
        assert content not in errors[0]


def test_what_is_made_up_is_good_and_made_once(secrets: Path) -> None:
    assert list(credential_errors(secrets, settings())) == []
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert make_missing(secrets, settings()) == []
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in secrets.iterdir())


def test_secrets_that_others_can_read_are_told(secrets: Path) -> None:
    (secrets / "redis_url").chmod(0o640)
    assert "chmod 600" in next(credential_errors(secrets, settings()))


def test_external_account_binding_needs_its_key(secrets: Path) -> None:
    bound = settings(tls='eab_key_id = "kid-1"')
    assert any("acme_eab_hmac_key is missing" in error for error in credential_errors(secrets, bound))


def test_without_the_folder_there_is_one_error(tmp_path: Path) -> None:
    assert len(list(credential_errors(tmp_path / "absent", settings()))) == 1


# --- rendering --------------------------------------------------------------------------------


def test_no_secret_is_rendered_and_every_variable_is_explained(secrets: Path) -> None:
    for credential in CREDENTIALS:
        if not (secrets / credential.file).exists():
            (secrets / credential.file).write_text("x")
    files = render(settings(), NEW, credentials=tuple(each for each in CREDENTIALS if each.variable))
    values = [(secrets / credential.file).read_text().strip() for credential in CREDENTIALS]
    for file in files:
        assert not [value for value in values if len(value) > 1 and "///" not in value and value in file.text]
    environment = next(file.text for file in files if file.path.endswith(".env"))
    for variable in variables():
        assert re.search(rf"(?m)^#? ?{variable.name}(=| is a credential)", environment), variable.name
        assert variable.help in environment


def test_the_environment_is_read_back_by_the_library(secrets: Path) -> None:
    from knowledge_system.settings import AppSettings

    result = settings(upkeep='smtp_host = "mail.example"')
    environment = rendered(result)["etc/knowledge-system/knowledge-system.env"]
    given = dict(line.split("=", 1) for line in environment.splitlines() if line and not line.startswith("#"))
    files = {
        "MKS_SECRET_KEYS_FILE": "secret_keys",
        "DATABASE_URL_FILE": "database_url",
        "MKS_REDIS_URL_FILE": "redis_url",
    }
    made = AppSettings.from_env({**given, **{name: str(secrets / file) for name, file in files.items()}})
    assert made.hardening.wsgi.allowed_hosts == ("a.example",)
    assert made.hardening.notify.alert_to == ("o@a.example",)
    assert made.hardening.wsgi.trusted_proxies == ("unix",)


@pytest.mark.parametrize(
    ("installed", "there", "absent"),
    [
        (
            Installed((1, 26, 3), (3, 5, 0)),
            ["http2 on;"],
            ["ssl_ecdh_curve X", "ssl_session_tickets", "ssl http2"],
        ),
        (
            Installed((1, 25, 0), (3, 0, 2)),
            ["ssl http2", "ssl_ecdh_curve X25519:"],
            ["http2 on;", "ssl_session_tickets"],
        ),
        (
            Installed((1, 22, 1), (1, 1, 1)),
            ["ssl http2", "ssl_session_tickets off;"],
            ["http2 on;", "MLKEM768:"],
        ),
    ],
)
def test_nginx_is_rendered_for_its_version(installed: Installed, there: list[str], absent: list[str]) -> None:
    whole = "\n".join(text for path, text in rendered(settings(), installed).items() if "nginx" in path)
    assert [word for word in there if word not in whole] == []
    assert [word for word in absent if word in whole] == []
    assert "ssl_stapling" not in whole


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "nginx version: nginx/1.26.3\nbuilt with OpenSSL 3.5.7 9 Jun 2026 (running with OpenSSL 3.5.9 29)",
            Installed((1, 26, 3), (3, 5, 9)),
        ),
        (
            "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.8 7 Feb 2023",
            Installed((1, 22, 1), (3, 0, 8)),
        ),
        ("nginx version: openresty/1.25.3.1\nbuilt with OpenSSL 3.0.8", Installed((1, 25, 3, 1), (3, 0, 8))),
        ("nothing", None),
    ],
)
def test_versions_are_read_from_what_nginx_says(output: str, expected: Installed | None) -> None:
    assert parse_nginx(output) == expected


@pytest.mark.parametrize("word", ["", "1.x", "1..2", "-1", "1.2.3.4.5", "99999"])
def test_what_is_no_version_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"1\.26\.3"):
        parse_version(word)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, secrets: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(content: str, *arguments: str) -> tuple[int, str, str]:
        file = tmp_path / "deploy.toml"
        file.write_text(content)
        words = ["render", "--settings", file, "--secrets", secrets, "--out", tmp_path / "out", *arguments]
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def test_rendering_twice_changes_nothing_and_a_difference_is_shown(run: Any, tmp_path: Path) -> None:
    assert run(text())[0] == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/etc").rglob("*")}
    assert ", 0 changed" in run(text())[1]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out/etc").rglob("*")} == before
    assert run(text(), "--check")[:2] == (0, "")
    code, shown, _ = run(text(edge="status_port = 8099"), "--check")
    assert code == 1
    assert "-    listen 127.0.0.1:8081;\n+    listen 127.0.0.1:8099;\n" in shown
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out/etc").rglob("*")} == before


def test_what_is_rendered_no_longer_is_taken_away_and_nothing_else(run: Any, tmp_path: Path) -> None:
    run(text())
    own = tmp_path / "out/etc/nginx/sites-enabled/other.conf"
    own.write_text("mine")
    direct = text(edge='mode = "direct"')
    assert "rendered no longer" in run(direct, "--check")[1]
    run(direct)
    assert own.read_text() == "mine"
    assert not (tmp_path / "out/etc/nginx/nginx.conf").exists()
    assert (tmp_path / "out/etc/knowledge-system/redirect.conf.py").exists()


def test_all_errors_come_in_one_message_and_nothing_is_written(
    run: Any, tmp_path: Path, secrets: Path
) -> None:
    (secrets / "redis_url").unlink()
    code, out, err = run(text(site='nawe = "x"', edge='http_port = "a"'), "--nginx", "1.18.0")
    assert (code, out) == (2, "")
    for error in ("site.nawe", "edge.http_port", "redis_url is missing", "nginx must be 1.22 or newer"):
        assert error in err
    assert not (tmp_path / "out").exists()


def test_folders_are_open_whatever_the_umask_is(run: Any, tmp_path: Path) -> None:
    """``cp -a out/etc /`` gives the mode of ``out/etc`` to ``/etc``."""
    before = os.umask(0o077)
    try:
        assert run(text())[0] == 0
    finally:
        os.umask(before)
    folders = [path for path in (tmp_path / "out").rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('MKS_MAIL_DOMIAN = "x"', "variables.MKS_MAIL_DOMIAN is unknown; did you mean MKS_MAIL_DOMAIN?"),
        ('MKS_SECRET_KEYS = "x"', "variables.MKS_SECRET_KEYS is a secret: secrets are separate files"),
        ("MKS_FOUR_EYES = 0", "variables.MKS_FOUR_EYES must be text of ASCII letters"),
        ("MKS_MAIL_DOMAIN = '$HOME'", "variables.MKS_MAIL_DOMAIN must be text of"),
        ('MKS_SLACK_CHANNEL = "a #b"', "variables.MKS_SLACK_CHANNEL must be text of"),
        ('MKS_ENV = "staging"', "variables.MKS_ENV follows from the other options"),
        ('MKS_UPLOADS = "/srv"', "variables.MKS_UPLOADS is unknown"),
        ('MKS_SESSION_IDLE_TIMEOUT = "soon"', "variables: MKS_SESSION_IDLE_TIMEOUT"),
        (
            'MKS_RATE_LIMITS = "search=often"',
            "variables: MKS_RATE_LIMITS, group 'search': 'often' is not a limit",
        ),
        ('MKS_RATE_LIMITS = "search"', "variables: MKS_RATE_LIMITS must be"),
        ('MKS_RATE_LIMITS = "searhc=1 per minute"', "variables: MKS_RATE_LIMITS names the group 'searhc'"),
        ('MKS_RATE_LIMITS_DRY_RUN = "searhc"', "variables: MKS_RATE_LIMITS_DRY_RUN names the group 'searhc'"),
        ('MKS_RATE_LIMITS_DRY_RUN = "search|admin"', "variables: MKS_RATE_LIMITS_DRY_RUN names the group"),
        (
            'MKS_RATE_LIMITS = \'{"search": "1 per minute"}\'',
            "variables.MKS_RATE_LIMITS must be text of",
        ),
    ],
)
def test_variables_are_known_and_no_secrets(run: Any, line: str, error: str) -> None:
    code, _, output = run(text(variables=line))
    assert code == 2
    assert error in output


def _pools(environment: str) -> int:
    """Connections that all sets of workers may open together."""
    lines = [line for line in environment.splitlines() if line.startswith(("MKS_DB_", "MKS_GUNICORN_"))]
    given = dict(line.split("=", 1) for line in lines)
    db = HardeningSettings.from_env(environ=given).db
    plan = plan_pool(
        workers=db.workers,
        threads=db.threads,
        max_connections=db.max_connections or 0,
        generations=db.generations,
    )
    assert plan.pool_size >= db.threads
    return (plan.pool_size + plan.max_overflow) * db.workers * db.generations


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"gunicorn": "workers = 8", "stores": "database_connections = 400"},
        {"stores": "database_connections = 2000"},
        {"tasks": "processes = 20", "stores": "database_connections = 128"},
    ],
)
def test_two_slots_and_a_reload_fit_into_the_database(tables: dict[str, str]) -> None:
    made = settings(**tables)
    files = rendered(made)
    left = made.stores.database_connections - made.tasks.processes - 2 - 10
    assert _pools(files["etc/knowledge-system/knowledge-system.env"]) <= left
    assert _pools(files["kubernetes/settings.env"]) <= left
    scaler = re.search(r"maxReplicas: (\d+)", files["kubernetes/application.yaml"])
    assert scaler is not None
    # One more than these during a rollout (maxSurge).
    assert f"MKS_DB_GENERATIONS={int(scaler[1]) + 1}" in files["kubernetes/settings.env"]


def test_a_variable_of_the_application_reaches_the_environment() -> None:
    given = '[variables]\nMKS_MAIL_DOMAIN = "genba.example.jp"\nMKS_SESSION_IDLE_TIMEOUT = "20m"\n'
    files = rendered(read_settings(deployed(SMALL, given)))
    for path in ("etc/knowledge-system/knowledge-system.env", "kubernetes/settings.env"):
        assert "\nMKS_MAIL_DOMAIN=genba.example.jp\n" in files[path]
        assert "\nMKS_SESSION_IDLE_TIMEOUT=20m\n" in files[path]
    assert 'MKS_MAIL_DOMAIN: "genba.example.jp"' in files["docker/compose.yml"]


def test_missing_settings_end_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--settings", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "absent: No such file" in capsys.readouterr().err


def test_a_host_knows_its_site_whatever_it_is_called(tmp_path: Path) -> None:
    with pytest.raises(DeploySettingsError, match="there is no"):
        find_settings_file(tmp_path)
    (tmp_path / "nginx").mkdir()
    for name in ("genba", "genba-staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "deploy.toml").touch()
        if name == "genba":
            assert find_settings_file(tmp_path) == tmp_path / "genba/deploy.toml"
    with pytest.raises(
        DeploySettingsError, match=r"one of .*/genba/deploy\.toml, .*/genba-staging/deploy\.toml"
    ):
        find_settings_file(tmp_path)


def test_settings_that_are_no_text_end_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deploy.toml"
    file.write_bytes(b"\xff\xfe[site]")
    assert main(["render", "--settings", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "must be UTF-8 text" in capsys.readouterr().err
    assert main(["status", "--settings", str(file)]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["release", "2"], ["rollback"], ["status"], ["maintenance", "on"]], ids=lambda words: words[0]
)
def test_without_nginx_what_needs_slots_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text(text(edge='mode = "direct"', paths=f'state = "{tmp_path}/state"'))
    assert main([*words, "--settings", str(file)]) == 1
    assert "Without nginx" in capsys.readouterr().err


def test_the_other_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example"]) == 0
    assert capsys.readouterr().out == example()
    (tmp_path / "deploy.toml").write_text(deployed())
    words = ["--settings", str(tmp_path / "deploy.toml"), "--secrets", str(tmp_path / "s")]
    assert main(["secrets", *words]) == 0
    assert "secret_keys" in capsys.readouterr().out
