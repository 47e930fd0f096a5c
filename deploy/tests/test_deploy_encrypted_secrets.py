"""``host.encrypt_secrets`` while it changes: keys of another kind, keys of another machine, and the way back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations import host_credentials
from mks_deploy.operations.host_credentials import plain_credentials, read_credential, write_credential
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.setup import facts

STAND_IN = f"""#!{sys.executable}
import base64, hashlib, os, sys
action, *options = sys.argv[1:]
given = sys.stdin.buffer.read()
named = dict(word[2:].split("=") for word in options if "=" in word)
head = lambda kind: hashlib.sha256(kind.encode()).digest()[:16] + os.environ["MACHINE"].encode()
if action == "encrypt":
    sys.stdout.buffer.write(base64.b64encode(head(named["with-key"]) + named["name"].encode() + b"|" + given))
    sys.exit()
read = base64.b64decode(given, validate=True)
for kind in ("host", "tpm2", "host+tpm2"):
    start = head(kind) + named["name"].encode() + b"|"
    if read.startswith(start):
        sys.stdout.buffer.write(read[len(start):])
        sys.exit()
sys.exit("not decrypted")
"""
"""``systemd-creds`` of a machine: what another machine, or for another name, encrypted is refused."""
NAMES = ("database_url", "secret_keys")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a host, on which this process is root."""
    for name in ("bin", "memory", "credentials", "config", "releases", "given"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / "systemd-creds"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("MACHINE", "machine1")
    monkeypatch.setattr(host_credentials, "_MEMORY", str(tmp_path / "memory"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in NAMES:
        (tmp_path / "given" / name).write_text(f"value of {name}")
    return tmp_path


def text_of(host: Path, key: str) -> str:
    paths = "".join(f'{name} = "{host / name}"\n' for name in ("credentials", "config", "releases"))
    return deployed(f'[paths]\n{paths}[host]\nencrypt_secrets = "{key}"\n')


def settings_of(host: Path, key: str) -> Settings:
    return read_settings(text_of(host, key))


def copy_secrets(settings: Settings, given: Path) -> tuple[str, ...]:
    """Write the secrets that differ, as ``apply`` does; return their names."""
    different = facts._secrets_that_differ(settings, given)
    for name in different:
        write_credential(settings, name, (given / name).read_bytes())
    return different


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "host"), ("host", ""), ("host", "host+tpm2"), ("host+tpm2", "host"), ("tpm2", "host")],
)
def test_another_kind_of_key_encrypts_all_secrets_again(host: Path, before: str, after: str) -> None:
    assert copy_secrets(settings_of(host, before), host / "given") == NAMES
    assert copy_secrets(settings_of(host, before), host / "given") == ()
    changed = settings_of(host, after)
    assert copy_secrets(changed, host / "given") == NAMES
    assert copy_secrets(changed, host / "given") == ()
    for name in NAMES:
        assert read_credential(changed, name) == f"value of {name}".encode()


def test_one_rotated_secret_is_encrypted_alone(host: Path) -> None:
    settings = settings_of(host, "host")
    copy_secrets(settings, host / "given")
    kept = (host / "credentials" / NAMES[0]).read_bytes()
    (host / "given" / NAMES[1]).write_text("another value")
    assert copy_secrets(settings, host / "given") == NAMES[1:]
    assert (host / "credentials" / NAMES[0]).read_bytes() == kept


def test_the_secrets_of_another_machine_are_named_and_written_again(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(host, "host")
    copy_secrets(settings, host / "given")
    monkeypatch.setenv("MACHINE", "machine2")
    with pytest.raises(
        ReleaseError, match=r"cannot decrypt database_url, secret_keys .*apply with --secrets"
    ):
        plain_credentials(settings)
    assert copy_secrets(settings, host / "given") == NAMES
    assert sorted(file.name for file in plain_credentials(settings).iterdir()) == list(NAMES)


def test_a_former_file_of_plain_text_stops_no_command(host: Path) -> None:
    settings = settings_of(host, "host")
    copy_secrets(settings, host / "given")
    (host / "credentials" / "slack_webhook_url").write_text("https://hooks.example.test/former")
    assert sorted(file.name for file in plain_credentials(settings).iterdir()) == list(NAMES)


@pytest.mark.parametrize(("present", "former"), [("", "host"), ("host", ""), ("host", "host+tpm2")])
def test_former_settings_with_another_encryption_find_all_secrets(
    host: Path, present: str, former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_secrets(settings_of(host, present), host / "given")
    file = host / "config" / "deploy.toml"
    file.write_text(text_of(host, present))
    (host / "config" / "former").mkdir()
    (host / "config" / "former" / "20260101T000000Z.toml").write_text(text_of(host, former))
    applied: list[Any] = []

    def noted(options: Any) -> int:
        applied.append(options)
        return 0

    monkeypatch.setattr("mks_deploy.cli.setup_commands.apply_command", noted)
    assert main(["settings", "rollback", "--settings", str(file)]) == 0
    (options,) = applied
    settings = settings_of(host, former)
    assert copy_secrets(settings, options.secrets) == NAMES
    for name in NAMES:
        assert read_credential(settings, name) == f"value of {name}".encode()
