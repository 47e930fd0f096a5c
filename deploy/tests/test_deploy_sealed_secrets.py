"""Secrets in the repository, encrypted by age: for several people, and never half-written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from mks_deploy.cli import main, parser
from mks_deploy.settings.sealed_secrets import SealError, open_sealed, read_decrypted, seal
from testbed.services import program


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two key pairs, ``a`` and ``b``, and a file with both public keys."""
    program("age")
    public = []
    for name in "ab":
        subprocess.run(["age-keygen", "-o", tmp_path / name], check=True, capture_output=True)
        done = subprocess.run(
            ["age-keygen", "-y", tmp_path / name], check=True, capture_output=True, text=True
        )
        public.append(done.stdout)
    (tmp_path / "recipients").write_text("".join(public))
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets/secret_keys").write_text("value-of-keys")
    (tmp_path / "secrets/database_url").write_text("postgresql://shop:hunter2@db/shop")
    return tmp_path


def test_each_recipient_can_open_and_nobody_else(keys: Path) -> None:
    file = keys / "secrets.age"
    assert seal(keys / "secrets", file, recipients=keys / "recipients") == ["database_url", "secret_keys"]
    for hidden in (b"hunter2", b"database_url"):
        assert hidden not in file.read_bytes()
    for name in "ab":
        opened = keys / f"opened-{name}"
        assert open_sealed(file, opened, identity=keys / name) == ["database_url", "secret_keys"]
        assert (opened / "secret_keys").read_text() == "value-of-keys"
        assert (opened.stat().st_mode & 0o777, (opened / "secret_keys").stat().st_mode & 0o777) == (
            0o700,
            0o600,
        )
        assert open_sealed(file, opened, identity=keys / name) == []
    subprocess.run(["age-keygen", "-o", keys / "c"], check=True, capture_output=True)
    with pytest.raises(SealError, match="age refused"):
        open_sealed(file, keys / "opened-c", identity=keys / "c")
    assert not (keys / "opened-c").exists()


def test_a_changed_file_is_refused_as_a_whole(keys: Path) -> None:
    file = keys / "secrets.age"
    seal(keys / "secrets", file, recipients=keys / "recipients")
    text = file.read_text()
    middle = len(text) // 2
    file.write_text(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :])
    with pytest.raises(SealError):
        open_sealed(file, keys / "opened", identity=keys / "a")
    assert not (keys / "opened").exists()


def test_what_somebody_else_encrypted_writes_nowhere_else(keys: Path) -> None:
    """Anyone can encrypt for a public key: an archive with paths must not leave the folder."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    for content in (buffer.getvalue(), b"no archive"):
        words = ["age", "--encrypt", "-R", keys / "recipients", "-o", keys / "other.age"]
        subprocess.run(words, input=content, check=True)
        with pytest.raises(SealError, match="something else than secrets"):
            open_sealed(keys / "other.age", keys / "opened", identity=keys / "a")
    assert not (keys / "escaped").exists()


def test_a_secret_that_was_changed_after_sealing_is_not_overwritten(keys: Path) -> None:
    file, folder = keys / "secrets.age", keys / "secrets"
    seal(folder, file, recipients=keys / "recipients")
    sealed_at = file.stat().st_mtime
    for name, seconds in (("secret_keys", 5), ("database_url", -5)):
        (folder / name).write_text("rotated")
        os.utime(folder / name, (sealed_at + seconds, sealed_at + seconds))
    with pytest.raises(SealError, match=r"^secret_keys: changed in .* after secrets\.age was written"):
        open_sealed(file, folder, identity=keys / "a")
    assert {each.read_text() for each in folder.iterdir()} == {"rotated"}
    (folder / "secret_keys").rename(keys / "elsewhere")
    assert open_sealed(file, folder, identity=keys / "a") == ["database_url", "secret_keys"]


@pytest.mark.parametrize("name", [".gitignore", "secret_keys.bak", "README"])
def test_nothing_is_sealed_that_could_not_be_opened(keys: Path, name: str) -> None:
    (keys / "secrets" / name).write_text("x")
    with pytest.raises(SealError, match="is no secret, by its name or size"):
        seal(keys / "secrets", keys / "secrets.age", recipients=keys / "recipients")
    assert not (keys / "secrets.age").exists()


def test_the_commands(keys: Path, capsys: Any) -> None:
    (keys / "deploy.toml").write_text(deployed())
    words = ["secrets", "--settings", str(keys / "deploy.toml"), "--secrets"]
    assert main([*words, str(keys / "made")]) == 0
    sealed = ["--seal", str(keys / "secrets.age"), "--recipients", str(keys / "recipients")]
    assert main([*words, str(keys / "made"), *sealed]) == 0
    opened = ["--open", str(keys / "secrets.age"), "--identity", str(keys / "b")]
    assert main([*words, str(keys / "again"), *opened]) == 0
    assert {file.name: file.read_bytes() for file in (keys / "made").iterdir()} == {
        file.name: file.read_bytes() for file in (keys / "again").iterdir()
    }
    capsys.readouterr()
    assert main([*words, str(keys / "again"), *opened[:2]]) == 2
    assert main([*words, str(keys / "again"), *sealed, *opened]) == 2
    assert main([*words, str(keys / "again"), "--open", str(keys / "a"), "--identity", str(keys / "a")]) == 1
    assert "AGE-SECRET-KEY" not in capsys.readouterr().err


def test_without_age_one_sentence_says_what_to_install(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(keys))
    with pytest.raises(SealError, match="apt-get install age"):
        seal(keys / "secrets", keys / "secrets.age", recipients=keys / "recipients")


# --- what SOPS, a vault or another program decrypted


def read(folder: Path, given: object, *further: str) -> subprocess.CompletedProcess[str]:
    """The command at the end of a pipe whose beginning prints what was given."""
    words = [sys.executable, "-m", "mks_deploy", "secrets", "--secrets", str(folder), "--read", "-", *further]
    text = given if isinstance(given, str) else json.dumps(given)
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


def test_what_another_program_decrypted_becomes_files(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    given = {
        "secret_key": "k-0123456789abcdef0123",
        "store_key": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
    }
    done = read(folder, given)
    assert (done.returncode, done.stdout) == (0, f"{folder}: secret_key, store_key changed\n")
    assert {file.name: (file.read_text(), file.stat().st_mode & 0o777) for file in folder.iterdir()} == {
        "secret_key": ("k-0123456789abcdef0123\n", 0o600),
        "store_key": (given["store_key"], 0o600),
    }
    assert read(folder, given).stdout == f"{folder}: nothing changed\n"
    changed = {**given, "secret_key": "k-another-0123456789abcdef", "smtp_password": "p-0123456789abcdef"}
    refused = read(folder, changed)
    assert refused.returncode == 1
    assert refused.stderr.startswith("secret_key: another value is in ")
    assert not (folder / "smtp_password").exists()
    assert read(folder, changed, "--overwrite").stdout == f"{folder}: secret_key, smtp_password changed\n"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "secret_key: hunter2-hunter2",  # YAML
        [],
        {},
        {"secret_key": "hunter2-hunter2", "../escaped": "hunter2"},
        {"secret_key": "hunter2-hunter2", "empty": ""},
        {"secret_key": "hunter2-hunter2", "blank": " \n"},
        {"secret_key": "hunter2-hunter2", "no_text": "hunter2\ud800"},
        {"secret_key": "hunter2-hunter2", "number": 5},
        '{"a":' * 100_000,
        # A file of SOPS that was not decrypted.
        {"secret_key": "ENC[AES256_GCM,data:hunter2=,type:str]", "sops": {"version": "3.10.2"}},
    ],
)
def test_what_is_no_decrypted_file_writes_nothing(tmp_path: Path, given: object) -> None:
    text = given if isinstance(given, str) else json.dumps(given)
    with pytest.raises(
        SealError, match=r"the input must be a JSON object|is no secret: a name has"
    ) as refused:
        read_decrypted(text.encode(), tmp_path / "secrets")
    assert "hunter2" not in str(refused.value)
    assert not (tmp_path / "secrets").exists()


PAGE = Path(__file__).parents[2] / "docs" / "en" / "how-to" / "deployment-secrets.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel")
def test_the_page_names_commands_that_exist() -> None:
    lines = re.findall(r"(?m)^(?:sops .* \| )?mks-deploy (.+)$", PAGE.read_text("utf-8"))
    assert len(lines) == 3
    for line in lines:
        parser().parse_args(shlex.split(line))
