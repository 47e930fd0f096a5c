"""``mks-deploy apply``: what remains on a host is done, in steps that can be cut off and repeated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_machine import APT, PREFIX, Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations.release import ReleaseError
from mks_deploy.rendering import render
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.setup.apply import HostSetup
from mks_deploy.setup.facts import digests
from mks_deploy.setup.plan import HostFacts, SetupStep, plan_setup, setup_packages, units_to_enable
from mks_deploy.setup.store_files import store_files
from mks_deploy.versions import Installed
from testbed.polling import wait_until
from testbed.services import program

APPLICATION = Path(__file__).parent / "apps" / "flask_jobs"
HOST = "shop.example.test"
SETTINGS = read_settings(deployed())
TOPICS = ("files", "application", "nginx", "postgresql", "redis", "renewal")

# --- the plan ---------------------------------------------------------------------------------


def bare() -> HostFacts:
    return HostFacts(
        wanted=dict.fromkeys(TOPICS, "new"), secrets_differ=("database_url", "secret_keys"), version="1"
    )


def after(facts: HostFacts, step: SetupStep) -> HostFacts:
    """The host once a step is done."""
    facts = replace(facts, applied={**facts.applied, step.topic: "new"}) if step.topic else facts
    match step.key:
        case "packages":
            return replace(facts, packages=frozenset(setup_packages(SETTINGS)), cluster="17")
        case "files":
            return replace(facts, files_differ=False)
        case "secrets":
            return replace(facts, secrets_differ=())
        case "role":
            return replace(facts, has_role=True)
        case "database":
            return replace(facts, has_database=True)
        case "redis":
            return replace(facts, includes_redis=True)
        case "current":
            return replace(facts, linked=facts.version)
        case "command":
            return replace(facts, has_command=True)
        case "placeholder":
            return replace(facts, certificate="placeholder")
        case "certificate":
            return replace(facts, certificate="issued")
        case "backup":
            return replace(facts, has_backup=True)
        case "release":
            return replace(facts, running=facts.version)
        case "units":
            return replace(facts, enabled=frozenset(units_to_enable(SETTINGS)))
        case _:
            return facts


def finished() -> HostFacts:
    facts = bare()
    while steps := plan_setup(SETTINGS, facts):
        facts = after(facts, steps[0])
    return facts


def keys(facts: HostFacts, *, issue: bool = True) -> list[str]:
    return [step.key for step in plan_setup(SETTINGS, facts, issue=issue)]


def test_a_bare_host_needs_every_step_in_order() -> None:
    assert keys(bare()) == [
        "packages",
        "files",
        "secrets",
        "postgresql",
        "role",
        "database",
        "redis",
        "current",
        "command",
        "placeholder",
        "nginx",
        "certificate",
        "backup",
        "release",
        "units",
        "rehearsal",
    ]
    assert all(step.undo and step.what for step in plan_setup(SETTINGS, bare()))


DONE = finished()


@pytest.mark.parametrize(
    ("change", "remaining"),
    [
        ({}, []),
        ({"packages": DONE.packages - {"certbot"}}, ["packages"]),
        ({"files_differ": True}, ["files"]),
        ({"wanted": {**DONE.wanted, "nginx": "x", "files": "x"}}, ["files", "nginx"]),
        ({"wanted": {**DONE.wanted, "application": "x"}}, ["restart"]),
        ({"secrets_differ": ("redis_url",)}, ["secrets"]),
        ({"secrets_left": ("smtp_password",)}, ["former secrets"]),
        ({"has_role": False}, ["role"]),
        ({"has_database": False}, ["database"]),
        ({"includes_redis": False}, ["redis"]),
        ({"certificate": "placeholder"}, ["certificate"]),
        ({"version": "2"}, ["release"]),
        ({"version": "2", "has_backup": False}, ["backup", "release"]),
        ({"enabled": DONE.enabled - {"knowledge-system-beat.service"}}, ["units"]),
    ],
)
def test_what_is_as_it_should_be_is_left_alone(change: dict[str, object], remaining: list[str]) -> None:
    assert keys(replace(DONE, **change)) == remaining  # type: ignore[arg-type] # rows of a table


def test_a_release_without_a_migration_needs_no_backup() -> None:
    facts = replace(DONE, version="2", has_backup=False)
    (step,) = plan_setup(SETTINGS, facts, migrate=False)
    assert step.key == "release"
    assert "--migrate" not in step.commands[0]


def test_without_a_certificate_the_rest_is_done() -> None:
    assert keys(replace(DONE, certificate="placeholder"), issue=False) == []


HARD = read_settings(
    deployed("[host]\nfirewall = true\nssh_keys_only = true\nunattended_upgrades = true\nssh_port = 2222")
)


def test_ways_into_the_host_are_closed_last_and_with_a_way_back() -> None:
    wanted = {**DONE.wanted, "ssh": "new", "firewall": "new", "renewal": "changed"}
    facts = replace(DONE, wanted=wanted, has_root_key=True)
    packages, *rest = plan_setup(HARD, facts)
    assert packages.commands[1][-2:] == ("nftables", "unattended-upgrades")
    assert [step.key for step in rest] == ["connections", "ssh", "firewall", "rehearsal"]
    words = [" ".join(command) for command in rest[2].commands]
    undo = "systemctl restart knowledge-system-firewall-undo.timer"
    assert words.index(undo) < words.index("systemctl restart knowledge-system-firewall.service")
    with pytest.raises(ReleaseError, match="names no key, so nobody could sign in"):
        plan_setup(HARD, replace(facts, has_root_key=False))


def test_nothing_of_the_host_is_touched_unless_it_is_asked_for() -> None:
    paths = {file.path for file in render(SETTINGS, Installed())}
    more = {file.path for file in render(HARD, Installed())} - paths
    assert more == {
        "etc/apt/apt.conf.d/52knowledge-system",
        "etc/knowledge-system/firewall.nft",
        "etc/ssh/sshd_config.d/knowledge-system.conf",
        *(f"etc/systemd/system/knowledge-system-firewall{part}" for part in (".service", "-undo.service")),
        "etc/systemd/system/knowledge-system-firewall-undo.timer",
    }


def test_each_part_of_the_host_takes_notice_of_its_own_files() -> None:
    files = [file for file in render(HARD, Installed()) if file.path.startswith(("etc/", "usr/"))]
    before = digests(HARD, files)
    assert before.keys() == {*TOPICS, "ssh", "firewall"}
    changed = {
        "etc/nginx/knowledge-system/proxy.conf": "nginx",
        "etc/knowledge-system/redis.conf": "redis",
        "etc/redis/redis-cache.conf": "redis",
        "etc/knowledge-system/postgresql.conf": "postgresql",
        "etc/knowledge-system/knowledge-system.env": "application",
        "etc/knowledge-system/gunicorn.conf.py": "application",
        "etc/systemd/system/knowledge-system@.service": "application",
        "etc/systemd/system/knowledge-system-worker.service": "application",
        "etc/knowledge-system/certbot.ini": "renewal",
        "etc/systemd/system/knowledge-system-renew.service": "renewal",
        "etc/ssh/sshd_config.d/knowledge-system.conf": "ssh",
        "etc/knowledge-system/firewall.nft": "firewall",
        "etc/tmpfiles.d/knowledge-system.conf": "",
    }
    assert changed.keys() <= {file.path for file in files}
    for path, topic in changed.items():
        other = [replace(file, text="x") if file.path == path else file for file in files]
        after_it = digests(HARD, other)
        assert {each for each in before if before[each] != after_it[each]} == {"files", topic} - {""}, path


def test_an_application_without_servers_needs_none() -> None:
    text = '[app]\nneeds = []\nmigrate = []\n[tasks]\napplication = ""\n'
    with_nothing = read_settings(deployed(text).replace("migrate = []\n", ""))
    found = [step.key for step in plan_setup(with_nothing, bare())]
    assert not {"postgresql", "role", "database", "redis", "backup"} & set(found)
    assert setup_packages(with_nothing) == ("certbot", "logrotate", "nginx")


@given(st.lists(st.integers(0, 20), max_size=6))
def test_a_run_that_is_cut_off_anywhere_is_completed_by_the_next_one(lengths: list[int]) -> None:
    facts, seen = bare(), Counter[str]()
    for length in [*lengths, 100]:
        for _ in range(length):
            if not (steps := plan_setup(SETTINGS, facts)):
                break
            seen[steps[0].key] += 1
            facts = after(facts, steps[0])
    assert keys(facts) == []
    assert max(seen.values()) == 1  # nothing is done twice


_ONE_HOST = '[[hosts]]\nname = "one"\naddress = "127.0.0.1"\nroles = ["edge", "web", "worker", "database"]\n'
_ONE_HOST += '[[hosts]]\nname = "two"\naddress = "127.0.0.2"\nroles = ["redis", "cache"]\n'


@pytest.mark.parametrize(
    ("hosts", "given_names", "there", "left"),
    [
        ("", "secret_keys", "secret_keys", []),
        ("", "secret_keys", "secret_keys smtp_password own", ["own", "smtp_password"]),
        ("", "secret_keys smtp_password", "secret_keys", []),
        ("", "", "secret_keys", []),  # nobody means a host without secrets
        ("", None, "secret_keys smtp_password", []),  # those of the host itself
        (_ONE_HOST, "redis_password store_key", "redis_password store_key own", ["own"]),
        (
            _ONE_HOST,
            "redis_password store_key own",
            "store_key own",
            ["own"],
        ),  # of an application that is not here any more
    ],
)
def test_a_secret_that_is_not_given_any_more_leaves_the_folder_that_units_read(
    hosts: str, given_names: str | None, there: str, left: list[str], tmp_path: Path
) -> None:
    paths = "".join(f'{each} = "{tmp_path / each}"\n' for each in ("config", "credentials"))
    more = "[host]\nshared_uploads = true\n" if hosts else ""
    settings = read_settings(deployed(f"{more}[paths]\n{paths}") + hosts)
    settings = settings.on("two") if hosts else settings
    for folder in ("config", "credentials", "secrets"):
        (tmp_path / folder).mkdir()
    credentials, secrets = tmp_path / "credentials", tmp_path / "secrets"
    for name in there.split():
        (credentials / name).write_text(name)
        (credentials / name).chmod(0o600)
    for name in (given_names or "").split():
        (secrets / name).write_text(name)
    chosen = credentials if given_names is None else secrets
    host = HostSetup(settings, rendered=lambda: (), secrets=chosen, version="1", command=lambda _: 0)
    steps = [step for step in host.remaining() if step.key == "former secrets"]
    assert [
        name for step in steps for name in left if f"rm {credentials}/former/{left[0]}" in step.what
    ] == left
    for step in steps:
        host.carry_out(step)
        assert not [each for each in host.remaining() if each.key == "former secrets"]
    assert sorted(path.name for path in credentials.iterdir() if path.is_file()) == sorted(
        set(there.split()) - set(left)
    )
    for name in left:
        file = credentials / "former" / name
        assert (file.read_text(), file.stat().st_mode & 0o777) == (name, 0o600)
        # Going back: it is given again.
        (secrets / name).write_text(name)
    if left and not hosts:
        copied = next(step for step in host.remaining() if step.key == "secrets")
        assert all(name in copied.what for name in left)


@pytest.mark.parametrize("name", ["redis_password", "store_key"])
@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_secret_that_is_missing_never_becomes_an_empty_password(
    name: str, content: str | None, tmp_path: Path
) -> None:
    settings = read_settings(deployed("[host]\nshared_uploads = true\n") + _ONE_HOST).on("two")
    for each in ("redis_password", "store_key"):
        (tmp_path / each).write_text("x")
    assert len(store_files(settings, tmp_path)) == 2
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ReleaseError, match=f"the secret {name} is missing or empty"):
        store_files(settings, tmp_path)


# The process ends at the call of this number that renames a file or changes its owner or mode.
CUT = """
import os, pathlib, signal, sys
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.setup import apply
from mks_deploy.setup.plan import SetupStep

apply.REDIS_CONF = pathlib.Path(sys.argv[1])
settings = read_settings(pathlib.Path(sys.argv[2]).read_text())
secrets = pathlib.Path("/nonexistent")
host = apply.HostSetup(settings, rendered=tuple, secrets=secrets, version="1", command=lambda _: 0)
left = int(sys.argv[3])

def cut(event, arguments):
    global left
    left -= event in {"os.rename", "os.chown", "os.chmod"}
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(cut)
host.carry_out(SetupStep("redis", "", (), "", call="include Redis settings"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another account, which only root may")
def test_a_cut_while_redis_conf_is_written_leaves_its_owner_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text(deployed())
    conf = tmp_path / "redis.conf"
    codes = list[int]()
    for call in range(1, 20):
        conf.write_text("port 0\n")
        os.chown(conf, 65_534, 65_533)
        conf.chmod(0o640)
        words = [sys.executable, "-c", CUT, conf, tmp_path / "deploy.toml", str(call)]
        codes.append(subprocess.run(words, check=False).returncode)
        found = conf.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65_534, 65_533, 0o640), call
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert len(codes) > 2
    assert conf.read_text() == "port 0\ninclude /etc/knowledge-system/redis.conf\n"


@pytest.mark.parametrize("version", ["../x", "9", "-x"])
def test_what_is_no_version_is_refused(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, secrets = tmp_path / "deploy.toml", tmp_path / "secrets"
    file.write_text(deployed())
    words = ["--settings", str(file), "--secrets", str(secrets)]
    assert main(["secrets", *words]) == 0
    assert main(["apply", *words, f"--version={version}", "--plan"]) == 1
    assert "is not a version" in capsys.readouterr().err
    file.write_text(deployed("[host]\nfirewall = 1"))
    assert main(["apply", *words, "--version", "1"]) == 2
    assert "host.firewall must be true or false" in capsys.readouterr().err


# --- on a machine -----------------------------------------------------------------------------

# Eight clients, a connection for each request; what came back is counted for each phase, which a file names.
CLIENTS = """
import collections, http.client, itertools, json, pathlib, socket, ssl, threading
phase, seen = pathlib.Path("/run/phase"), collections.defaultdict(collections.Counter)
context, numbers = ssl._create_unverified_context(), itertools.count(1)

def client(form):
    while (now := phase.read_text()) != "over":
        connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
        try:
            connection.sock = context.wrap_socket(
                socket.create_connection(("127.0.0.1", 443), 60), server_hostname="shop.example.test"
            )
            fields = {"Host": "shop.example.test", "Content-Type": "application/x-www-form-urlencoded"}
            if form:
                connection.request("POST", "/jobs", f"text={next(numbers)}", fields)
            else:
                connection.request("GET", "/slow", headers=fields)
            answer = connection.getresponse()
            answer.read()
            word = str(answer.status) + (" later" if answer.headers["Retry-After"] else "")
        except Exception as error:
            word = repr(error)
        finally:
            connection.close()
        seen[now][word] += 1

threads = [threading.Thread(target=client, args=(number > 4,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
pathlib.Path("/run/seen").write_text(json.dumps(seen))
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    for name in ("logrotate", "nginx", "redis-server", "postgres", "git", "certbot"):
        program(name)
    folder = Path(tempfile.mkdtemp(prefix="mksp"))
    made = Machine(folder)
    try:
        made.start()
        version = Path(program("postgres")).resolve().parents[1].name
        made.run("pg_dropcluster", version, "main", check=False)
        made.run("pg_createcluster", version, "main", "--port", "5432")
        made.write("/usr/local/sbin/apt-get", APT, mode=0o755)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The application as ``init`` describes it, with its secrets."""
    for name, value in (
        ("SECRET_KEY", "x"),
        ("DATABASE_URL", "postgresql:///x"),
        ("REDIS_URL", "redis://localhost"),
        ("CELERY_BROKER_URL", "redis://localhost"),
    ):
        monkeypatch.setenv(name, value)
    source = Path(shutil.copytree(APPLICATION, folder / "source"))
    words = ["--name", "shop", "--host", HOST, "--mail", "ops@example.test", "--python", sys.executable]
    assert main(["init", str(source), *words, "--yes"]) == 0
    more = '[edge]\nipv6 = false\n[app]\nmigrate = ["python", "jobs.py", "migrate"]\n'
    settings = source / "deploy.toml"
    settings.write_text(deployed(more, base=settings.read_text("utf-8")), "utf-8")
    given_words = ["--settings", str(settings), "--secrets", str(source / "secrets")]
    assert main(["secrets", *given_words]) == 0
    return source


def _make_version(machine: Machine, version: int) -> None:
    machine.run("mkdir", "-p", f"/opt/shop/versions/{version}")
    machine.run("cp", "/root/kit/jobs.py", f"/opt/shop/versions/{version}/jobs.py")
    machine.make_environment(f"/opt/shop/versions/{version}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_is_set_up_and_operated_under_load(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(_source(tmp_path, monkeypatch), machine.path("/root/kit"))
    _make_version(machine, 1)
    words = ["/opt/shop/versions/1/venv/bin/mks-deploy", "apply", "--settings", "/root/kit/deploy.toml"]
    words += ["--secrets", "/root/kit/secrets", "--no-certificate", "--version"]
    plan = machine.run(*words, "1", "--plan")
    assert "runuser -u postgres -- createdb --owner shop shop" in plan
    assert not machine.path("/etc/shop").exists()
    # Cut off in the middle, and completed by the same command.
    machine.run("timeout", "-s", "KILL", "9", *words, "1", check=False)
    first = machine.run(*words, "1")
    assert first.endswith("nothing remains to be done\n")
    assert machine.run(*words, "1").splitlines()[-1:] == ["nothing remains to be done"]
    assert machine.run(*words, "1", "--plan") == ""
    for part in ("@blue", "-worker", "-beat"):
        state = machine.show(f"shop{part}.service", "ActiveState", "NRestarts")
        assert state == {"ActiveState": "active", "NRestarts": "0"}, machine.journal(f"shop{part}.service")
    seen = _under_load(machine, words)
    served = ("idle", "reload", "restart", "release", "rollback")
    assert {word for phase in served for word in seen[phase]} == {"200"}, seen
    # A server that is away is said, and said to come back; nothing else goes wrong.
    for phase in ("database", "redis"):
        assert set(seen[phase]) <= {"200", "503 later"}, seen
        assert seen[phase]["200"] > 20
    assert sum(sum(counts.values()) for counts in seen.values()) > 300
    _tasks_are_done(machine)
    # Both versions wrote, side by side, and the one before after the rollback too.
    rows = "SELECT bool_or(source = 'two') AND bool_or(source IS NULL) FROM jobs"
    assert machine.run("runuser", "-u", "postgres", "--", "psql", "-XAtqd", "shop", "-c", rows).endswith(
        "t\n"
    )
    _is_killed_in_its_canary(machine)
    _former_settings_return(machine, words)
    # The first backup was restored in the sandbox of its unit, and the ones of this week are not.
    machine.run("systemctl", "start", "shop-backup.service")
    said = machine.journal("shop-backup.service", lines=1000)
    assert said.count("all as written") == 1, said
    failed = machine.run("systemctl", "list-units", "--failed", "--no-legend", "--no-pager", "--plain")
    assert failed == ""


def _starts_although_the_standby_is_not_there(machine: Machine, source: Path, words: list[str]) -> None:
    """PostgreSQL asks the other servers of the database before it starts, by its own unit."""
    settings = source / "deploy.toml"
    standby = '[[hosts]]\nname = "two"\naddress = "127.0.0.2"\nroles = ["standby"]\n'
    text = settings.read_text("utf-8").replace("pooler = true", "pooler = false") + standby
    settings.write_text(text, "utf-8")
    for name in ("database_url", "store_certificate", "store_key"):
        (source / "secrets" / name).unlink()
    assert main(["secrets", "--settings", str(settings), "--secrets", str(source / "secrets")]) == 0
    shutil.rmtree(machine.path("/root/kit"))
    shutil.copytree(source, machine.path("/root/kit"))
    assert machine.run(*words).endswith("nothing remains to be done\n")
    unit = f"postgresql@{next(machine.path('/etc/postgresql').iterdir()).name}-main.service"
    assert "may-start" in machine.run("systemctl", "cat", unit)
    machine.run("systemctl", "restart", unit)
    assert machine.show(unit, "ActiveState") == {"ActiveState": "active"}
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1"]
    assert machine.run(*ask, f"https://{HOST}/jobs/21") == "42"


ONE_OF_SEVERAL = """
[[hosts]]
name = "one"
address = "127.0.0.1"
roles = ["edge", "web", "worker", "database", "redis", "cache"]
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_of_several_reaches_its_servers_over_tls_with_accounts(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source(tmp_path, monkeypatch)
    settings = source / "deploy.toml"
    pooled = "[stores]\npooler = true\n[host]\nshared_uploads = true\n"
    settings.write_text(deployed(pooled, base=settings.read_text("utf-8")) + ONE_OF_SEVERAL, "utf-8")
    shutil.rmtree(source / "secrets")
    assert main(["secrets", "--settings", str(settings), "--secrets", str(source / "secrets")]) == 0
    shutil.copytree(source, machine.path("/root/kit"))
    _make_version(machine, 1)
    words = ["/opt/shop/versions/1/venv/bin/mks-deploy", "apply", "--settings", "/root/kit/deploy.toml"]
    words += ["--secrets", "/root/kit/secrets", "--no-certificate", "--host", "one", "--version", "1"]
    for stage in ("servers", "migration"):
        assert machine.run(*words, "--stage", stage).endswith("nothing remains to be done\n")
        assert not machine.path("/opt/shop/slots/blue").is_symlink()
    done = machine.run(*words, check=False)
    assert done.endswith("nothing remains to be done\n"), machine.journal("shop@blue.service")
    assert machine.run(*words) == "nothing remains to be done\n"
    for part in ("@blue", "-worker", "-beat", "-pooler"):
        state = machine.show(f"shop{part}.service", "ActiveState", "NRestarts")
        assert state == {"ActiveState": "active", "NRestarts": "0"}, machine.journal(f"shop{part}.service")
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1"]
    assert machine.run(*ask, "-d", "text=21", f"https://{HOST}/jobs") == "taken"
    wait_until(lambda: machine.run(*ask, f"https://{HOST}/jobs/21") == "42", timeout=60, what="the task")
    _starts_although_the_standby_is_not_there(machine, source, words)
    # The passwords are nowhere but in files of their accounts.
    password = (source / "secrets" / "database_password").read_text().strip()
    for folder in ("/etc/shop", "/etc/redis", "/etc/systemd/system"):
        for file in (path for path in machine.path(folder).rglob("*") if path.is_file()):
            if password in file.read_text(errors="replace"):
                assert file.stat().st_mode & 0o077 == 0, file


def _former_settings_return(machine: Machine, words: list[str]) -> None:
    """A change of the settings is applied, and taken back without the file that it came from."""
    before = machine.path("/etc/shop/deploy.toml").read_text()
    machine.write("/root/kit/deploy.toml", deployed("[upkeep]\nlog_days = 7\n", base=before))
    running = machine.run("readlink", "/opt/shop/current").strip().rpartition("/")[2]
    machine.run(*words, running)
    assert "maxage 7" in machine.path("/etc/shop/logrotate.conf").read_text()
    command = [words[0], "settings"]
    assert len(machine.run(*command, "list").splitlines()) == 1
    assert "+log_days" not in machine.run(*command, "diff")
    assert machine.run(*command, "rollback").endswith("nothing remains to be done\n")
    assert machine.path("/etc/shop/deploy.toml").read_text() == before
    assert "maxage 7" not in machine.path("/etc/shop/logrotate.conf").read_text()


_COLUMN = "ALTER TABLE jobs ADD COLUMN IF NOT EXISTS source text"


def _under_load(machine: Machine, words: list[str]) -> dict[str, dict[str, int]]:
    _make_version(machine, 2)
    # Its schema differs: the version before writes rows without the new column until it is drained.
    file = "/opt/shop/versions/2/jobs.py"
    text = machine.path(file).read_text()
    changed = text.replace("(number) VALUES (%s)", "(number, source) VALUES (%s, 'two')")
    table = "(number bigint PRIMARY KEY, result bigint)"
    changed = changed.replace(f'{table}")', f'{table}")\n        database.execute("{_COLUMN}")')
    assert changed.count("source") == 2
    machine.write(file, changed)
    cluster = next(machine.path("/etc/postgresql").iterdir()).name
    phases = {
        "idle": ("sleep", "2"),
        "reload": ("systemctl", "reload", "shop@blue.service"),
        "restart": ("systemctl", "restart", "shop@blue.service"),
        "release": (*words, "2"),
        "rollback": ("mks-deploy", "rollback"),
        "database": ("systemctl", "restart", f"postgresql@{cluster}-main.service"),
        "redis": ("systemctl", "restart", "redis-server.service"),
    }
    machine.write("/run/phase", "begin")
    clients = machine.background(f"{PREFIX}/python/bin/python3", "-c", CLIENTS, variables={})
    for phase, command in phases.items():
        machine.write("/run/phase", phase)
        machine.run(*command)
        machine.run("sleep", "4")
    machine.write("/run/phase", "over")
    assert clients.wait(90) == 0
    print(machine.path("/run/seen").read_text())  # noqa: T201 - the figures, for the report
    found: dict[str, dict[str, int]] = json.loads(machine.path("/run/seen").read_text())
    return found


def _is_killed_in_its_canary(machine: Machine) -> None:
    """Version 1 runs again after a rollback; the release of 2 is killed, and taken back."""
    upstream = machine.path("/etc/nginx/shop/upstream.conf")
    words = "echo $$ >/run/release; exec mks-deploy release 2 --canary 10 --observe 600"
    release = machine.background("sh", "-c", words, variables={})
    wait_until(lambda: " weight=10 " in upstream.read_text(), timeout=120, what="the canary")
    machine.run("kill", "-9", machine.path("/run/release").read_text().strip())
    release.wait(60)
    said = machine.run("mks-deploy", "status")
    assert said.startswith("interrupted: mks-deploy release by root since "), said
    found = re.findall(r"(?m)^([* ]) (?:blue|green) +(\d) +ready, (\d+) % of the requests$", said)
    assert sorted(found) == [(" ", "2", "10"), ("*", "1", "90")], said
    assert re.search(r"(?m)^1 is in slot (?:blue|green)$", machine.run("mks-deploy", "rollback"))
    said = machine.run("mks-deploy", "status")
    assert re.search(r"(?m)^\* (?:blue|green) +1 +ready$", said), said
    ask = ["curl", "-sk", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}", "--resolve"]
    assert machine.run(*ask, f"{HOST}:443:127.0.0.1", f"https://{HOST}/slow") == "200"


def _tasks_are_done(machine: Machine) -> None:
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1"]

    def said(path: str, *more: str) -> str:
        return machine.run(*ask, *more, f"https://{HOST}{path}")

    assert said("/jobs", "-d", "text=7000001") == "taken"
    try:
        wait_until(lambda: said("/jobs/7000001") == "14000002", timeout=60, what="the worker")
    except TimeoutError as error:
        raise AssertionError(machine.journal("shop-worker.service", lines=80)) from error
    before = int(said("/ticks"))
    wait_until(lambda: int(said("/ticks")) > before, timeout=60, what="beat")
