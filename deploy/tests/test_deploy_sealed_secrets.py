"""Secrets in the repository, encrypted by age: for several people, and never half-written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.settings.sealed_secrets import SealError, open_sealed, seal
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
