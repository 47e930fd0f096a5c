"""Old files go; the live one, links, and whatever takes a name in between stay."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.tasks import clean_folder
from mks_hardening.tasks.prebuilt import folder_cleaning as module
from mks_hardening.testing import FrozenClock

NOW = 1_790_000_000.0
DAY = 86_400.0


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def write(file: Path, *, age: float, text: str = "lines") -> Path:
    file.write_text(text)
    os.utime(file, (NOW - age, NOW - age))
    return file


def clean(folder: Path, **options: Any) -> Any:
    given = {"older_than": 30 * DAY, "clock": FrozenClock(NOW), **options}
    return clean_folder(folder, **given)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_old_files_go_and_it_tells_which(logs: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(logs / "app.log.1", age=29 * DAY)
    write(logs / "app.log.2", age=31 * DAY, text="12345")
    write(logs / "app.log.3.gz", age=400 * DAY, text="123")
    write(logs / "other.txt", age=400 * DAY)
    caplog.set_level(logging.INFO)
    done = clean(logs, pattern="app.log.*")
    assert (done.removed, done.size, done.kept) == (("app.log.2", "app.log.3.gz"), 8, {})
    assert names(logs) == ["app.log.1", "other.txt"]
    assert done.result == {"removed": 2, "bytes": 8, "names": ["app.log.2", "app.log.3.gz"], "kept": {}}
    assert "app.log.2, app.log.3.gz" in caplog.text


def test_the_live_file_stays_under_all_its_names(logs: Path) -> None:
    write(logs / "app.log", age=90 * DAY)
    os.link(logs / "app.log", logs / "app.log.1")
    assert clean(logs, keep=["app.log", "never-there"]).removed == ()
    assert names(logs) == ["app.log", "app.log.1"]


def test_a_file_that_somebody_writes_stays_whatever_it_is_called(logs: Path) -> None:
    file = write(logs / "rotated-yesterday", age=90 * DAY)
    with file.open("a"):
        done = clean(logs)
        assert (done.removed, done.kept) == ((), {"rotated-yesterday": "in use"})
        assert names(logs) == ["rotated-yesterday"]
    with file.open():  # who reads it reads on
        assert clean(logs).removed == ("rotated-yesterday",)


def test_another_name_of_a_file_elsewhere_goes_and_the_file_stays(logs: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "plan.pdf", age=90 * DAY)
    os.link(elsewhere, logs / "plan.pdf")
    assert clean(logs).removed == ("plan.pdf",)
    assert elsewhere.read_text() == "lines"


def test_nothing_but_files_goes(logs: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "target", age=90 * DAY)
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "inside", age=90 * DAY)
    (logs / "to-file").symlink_to(target)
    (logs / "to-folder").symlink_to(outside)
    (logs / "dangling").symlink_to(tmp_path / "nowhere")
    (logs / "folder").mkdir()
    write(logs / "folder" / "deep", age=90 * DAY)
    os.mkfifo(logs / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(logs)  # socket names are short
        listener.bind("socket")
        os.chdir(here)
        for name in ("to-file", "to-folder", "dangling", "fifo", "socket"):
            os.utime(logs / name, (0, 0), follow_symlinks=False)
        os.utime(logs / "folder", (0, 0))
        before = names(logs)
        assert clean(logs).removed == ()
        assert names(logs) == before
    assert target.exists()
    assert (outside / "inside").exists()
    assert (logs / "folder" / "deep").exists()


def test_a_folder_that_is_a_link_is_refused_and_one_that_is_not_there_is_empty(
    logs: Path, tmp_path: Path
) -> None:
    write(logs / "old", age=90 * DAY)
    (tmp_path / "link").symlink_to(logs)
    with pytest.raises(ConfigurationError, match="link"):
        clean(tmp_path / "link")
    with pytest.raises(ConfigurationError, match="folder"):
        clean(logs / "old")
    with pytest.raises(ConfigurationError, match="keep"):
        clean(logs, keep=["../app.log"])
    assert clean(tmp_path / "nowhere").removed == ()
    assert names(logs) == ["old"]


Change = Callable[[Path], None]


def _rotated(logs: Path) -> None:
    """A younger file takes the name."""
    write(logs / "young", age=0, text="young").replace(logs / "app.log.7")


def _linked(logs: Path) -> None:
    """A link to something precious takes the name."""
    (logs / "app.log.7").unlink()
    (logs / "app.log.7").symlink_to(logs.parent / "precious")


def _written(logs: Path) -> None:
    """Somebody writes to it after all."""
    write(logs / "app.log.7", age=0, text="more lines")


def _gone(logs: Path) -> None:
    (logs / "app.log.7").unlink()


@pytest.mark.parametrize("moment", ["open", "rename"])
@pytest.mark.parametrize("change", [_rotated, _linked, _written, _gone])
def test_what_takes_the_name_between_the_look_and_the_removal_stays(
    logs: Path, monkeypatch: pytest.MonkeyPatch, change: Change, moment: str
) -> None:
    precious = write(logs.parent / "precious", age=90 * DAY)
    write(logs / "app.log.7", age=90 * DAY)
    real = getattr(os, moment)

    def racing(path: Any, *args: Any, **options: Any) -> Any:
        if path == "app.log.7":
            change(logs)
        return real(path, *args, **options)

    monkeypatch.setattr(module.os, moment, racing)
    done = clean(logs)
    monkeypatch.undo()
    assert (done.removed, done.kept) == ((), {"app.log.7": "changed"})
    assert precious.read_text() == "lines"
    assert names(logs) == ([] if change is _gone else ["app.log.7"])


def test_a_name_that_was_taken_meanwhile_is_not_written_over(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs / "app.log.7", age=90 * DAY)
    real = os.rename

    def racing(old: Any, new: Any, **options: Any) -> None:
        if old == "app.log.7":
            _rotated(logs)
        real(old, new, **options)
        if old == "app.log.7":
            write(logs / "app.log.7", age=0, text="younger still")

    monkeypatch.setattr(module.os, "rename", racing)
    assert clean(logs).kept == {"app.log.7": "changed"}
    monkeypatch.undo()
    assert sorted(file.read_text() for file in logs.iterdir()) == ["young", "younger still"]


def test_what_a_killed_removal_left_goes_with_the_next(logs: Path) -> None:
    write(logs / ".mks-removing-0123456789abcdef", age=90 * DAY)
    write(logs / ".mks-removing-young", age=DAY)
    assert clean(logs, pattern="app.log.*").removed == (".mks-removing-0123456789abcdef",)
    assert names(logs) == [".mks-removing-young"]


def test_without_leases_age_and_names_decide(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module.fcntl, "F_SETLEASE")
    with write(logs / "open", age=90 * DAY).open("a"):
        assert clean(logs, keep=["app.log"]).removed == ("open",)


def test_a_folder_that_may_not_be_written_keeps_its_files(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs / "old", age=90 * DAY)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(module.os, "rename", refuse)
    assert clean(logs).kept == {"old": "not allowed"}
    assert names(logs) == ["old"]
