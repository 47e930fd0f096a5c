"""The first start in production: every error at once, a check, and a first administrator."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from knowledge_system.settings import AppSettings
from mks_hardening.exceptions import SettingsError
from mks_hardening.security import SecretBox
from testbed.forked_programs import ForkedPrograms

KEY = SecretBox.generate_key()
PASSWORD = "足場-養生-配筋-2026"


def production(tmp_path: Path, **changed: str) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'real.db'}",
        "MKS_ALLOWED_HOSTS": "knowledge.example",
        "MKS_SECRET_KEYS": KEY,
        "MKS_ENV": "production",
        "MKS_AREAS_OFF": "logging",
        **changed,
    }


def test_from_an_empty_database_to_a_first_administrator(
    tmp_path: Path, run_command: Any, forked_programs: ForkedPrograms
) -> None:
    environ = production(tmp_path)

    def create_admin(password: str) -> subprocess.CompletedProcess[str]:
        words = ["-m", "knowledge_system", "create-admin", "mori", "--name", "森 直子"]
        return forked_programs.run(*words, env=environ, text=f"{password}\n")

    before = run_command("check", **environ)
    assert (before.returncode, "revisions are missing" in before.stdout) == (1, True)
    assert run_command("upgrade", **environ).returncode == 0
    assert "no administrator" in run_command("check", **environ).stdout
    weak = create_admin("short")
    assert (weak.returncode, "Traceback" in weak.stderr) == (2, False)
    assert "password" in weak.stderr
    assert create_admin(PASSWORD).returncode == 0
    assert create_admin(PASSWORD).returncode == 2
    after = run_command("check", **environ)
    assert after.returncode == 0, after.stdout
    assert "MKS_SMTP_HOST" in after.stdout
    assert "MKS_BACKUPS" in after.stdout


@pytest.mark.parametrize(
    "command",
    [["-m", "knowledge_system", "check"], ["-c", "from knowledge_system.app import from_env; from_env()"]],
)
def test_a_pool_that_cannot_be_is_told_in_one_line(
    tmp_path: Path, command: list[str], forked_programs: ForkedPrograms
) -> None:
    environ = production(
        tmp_path,
        DATABASE_URL="postgresql+psycopg://127.0.0.1:1/none",
        MKS_DB_MAX_CONNECTIONS="8",
        MKS_GUNICORN_WORKERS="16",
        MKS_REDIS_URL="redis://127.0.0.1:1/0",
    )
    done = forked_programs.run(*command, env=environ)
    assert done.returncode == (2 if "check" in command else 3), done.stderr
    assert "Traceback" not in done.stderr
    assert "max_connections=8" in done.stderr


BROKEN = {
    "a database that does not respond": {"DATABASE_URL": "postgresql+psycopg://127.0.0.1:1/none"},
    "a file that is no database": {"DATABASE_URL": "sqlite:///{folder}/none.db"},
    "a folder that is not there": {"DATABASE_URL": "sqlite:////nowhere/x.db"},
    "another kind of database": {"DATABASE_URL": "mysql://host/name"},
    "no Redis": {"MKS_REDIS_URL": "redis://127.0.0.1:1/0"},
    "no folder of uploads": {"MKS_UPLOADS": "/proc/nowhere"},
    "no scanner": {"MKS_SCAN_SOCKET": "/nowhere.sock"},
    "no key": {"MKS_SECRET_KEYS": "", "MKS_SECRET_KEYS_FILE": "/nowhere"},
    "no host": {"MKS_ALLOWED_HOSTS": "a b"},
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_settings_check_tells_every_fault_without_a_traceback(
    tmp_path: Path, run_command: Any, case: str
) -> None:
    (tmp_path / "none.db").write_bytes(b"no database" * 1000)
    changed = {name: value.format(folder=tmp_path) for name, value in BROKEN[case].items()}
    done = run_command("check", **production(tmp_path, **changed))
    assert done.returncode in {1, 2}, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search("error|誤り", done.stdout + done.stderr)


def test_accounts_of_the_demonstration_are_found(tmp_path: Path, run_command: Any) -> None:
    environ = production(tmp_path)
    assert run_command("seed", "--demo", "--data", tmp_path / "demo", **environ).returncode == 0
    found = run_command("check", **environ)
    assert found.returncode == 1
    assert "the demo password is publicly known for ito, kobayashi" in found.stdout


WEAK = [
    ("MKS_SECRET_KEYS", base64.b64encode(bytes(32)).decode()),
    ("MKS_SECRET_KEYS", base64.b64encode(b"changemechangemechangemechangeme").decode()),
    ("DATABASE_URL", "postgresql+psycopg://app:changeme@db/knowledge"),
    ("DATABASE_URL", "postgresql+psycopg://app:Knowledge-2026-demo@db/knowledge"),
    ("DATABASE_URL", "postgresql+psycopg://app:change%20this1234@db/knowledge"),
    ("MKS_REDIS_URL", "redis://:short@localhost/0"),
    ("MKS_CELERY_BROKER_URL", "redis://:password1234!@localhost/1"),
]


@pytest.mark.parametrize(("name", "value"), WEAK)
def test_secrets_that_others_know_are_refused_in_production_and_not_shown(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        AppSettings.from_env(production(tmp_path, **{name: value}))
    (error,) = caught.value.errors
    assert name in error
    assert value not in error


def test_good_secrets_pass(tmp_path: Path) -> None:
    strong = "v7R-Qm2x_9sLkT0z"
    weak = "postgresql+psycopg://knowledge:changeme@db/knowledge"
    AppSettings.from_env(production(tmp_path, DATABASE_URL=weak, MKS_ENV="test"))
    AppSettings.from_env(
        production(tmp_path, DATABASE_URL=f"postgresql+psycopg://knowledge:{strong}@db/knowledge")
    )


def test_a_start_with_errors_tells_all_of_them_and_ends(
    tmp_path: Path, forked_programs: ForkedPrograms
) -> None:
    """As gunicorn starts it: one message without a traceback, and a status that is not tried again."""
    script = "from knowledge_system.app import from_env; from_env()"
    environ = production(
        tmp_path,
        MKS_SECRET_KEYS=base64.b64encode(bytes(32)).decode(),
        MKS_ALLOWED_HOSTS="",
        MKS_DEMO="perhaps",
    )
    done = forked_programs.run("-c", script, env=environ)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert sum(line.startswith("  - ") for line in done.stderr.splitlines()) == 3, done.stderr


def test_nobody_gets_mail_at_a_domain_of_ours_in_production(tmp_path: Path) -> None:
    def domain(**changed: str) -> str:
        return AppSettings.from_env(production(tmp_path, **changed)).mail_domain

    assert domain() == ""
    assert domain(MKS_MAIL_DOMAIN="genba.example.jp") == "genba.example.jp"


def test_administrators_need_a_second_factor_in_production_unless_told_otherwise(tmp_path: Path) -> None:
    def roles(**changed: str) -> frozenset[str]:
        return AppSettings.from_env(production(tmp_path, **changed)).second_factor_roles

    assert roles() == {"admin"}
    assert roles(MKS_SECOND_FACTOR_ROLES="") == frozenset()
    assert roles(MKS_SECOND_FACTOR_ROLES="admin, reviewer") == {"admin", "reviewer"}
    assert roles(MKS_ENV="test") == frozenset()
    with pytest.raises(SettingsError, match="cook"):
        roles(MKS_SECOND_FACTOR_ROLES="cook")
