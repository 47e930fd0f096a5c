from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.notify.engine._spool import Spool
from mks_hardening.testing import FrozenClock


def alert(name: str = "x", *, created: float = 1.0) -> Alert:
    return Alert(
        name, "f", created, "ERROR", "app", f"message {name}", fields={"site": "B棟"}, repeats=3, digest=True
    )


def spool(
    folder: Path,
    *,
    clock: FrozenClock | None = None,
    kind: str = "email",
    destination: str = "ops@example.com",
    max_files: int = 1000,
) -> Spool:
    return Spool(
        folder, kind=kind, destinations=[destination], clock=clock or FrozenClock(), max_files=max_files
    )


def file_name(known: Spool) -> str:
    """Where ``alert()`` goes."""
    return known._entries.of(alert())[0]


def claimed(known: Spool, most: int = 100) -> list[str]:
    return [one.id for _, one in known.lock_entries(most)]


def test_what_goes_in_comes_out_oldest_first(tmp_path: Path) -> None:
    known = spool(tmp_path / "deep" / "folder")
    assert known.empty()
    known.put(alert("late", created=20.0))
    known.put(alert("early", created=3.0))
    assert not known.empty()
    assert [one for _, one in known.lock_entries(10)] == [
        alert("early", created=3.0),
        alert("late", created=20.0),
    ]


@pytest.mark.parametrize("letter", ["x", "障", "👷", '"', "\n"])
def test_the_largest_alert_comes_back_whole(tmp_path: Path, letter: str) -> None:
    known = spool(tmp_path)
    largest = alert()._replace(
        message=letter * 8192,
        exception=letter * 32_768,
        fields={f"{number:03d}{letter * 97}": letter * 1000 for number in range(40)},
    )
    known.put(largest)
    assert [one for _, one in known.lock_entries(1)] == [largest]


def test_folder_and_files_are_private(tmp_path: Path) -> None:
    known = spool(tmp_path / "spool")
    known.put(alert())
    (file,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    spool(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("x")
    with pytest.raises(ConfigurationError, match="spool") as caught:
        spool(tmp_path / "spool")
    assert caught.value.parameter == "spool"


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="spool"):
        spool(Path("/proc/nowhere/spool"))


def test_a_claimed_alert_is_nobody_elses(tmp_path: Path) -> None:
    one, other = spool(tmp_path), spool(tmp_path)
    for name in "abc":
        one.put(alert(name))
    assert claimed(one, 2) == ["a", "b"]
    assert claimed(other) == ["c"]
    assert claimed(one) == []
    assert one.empty()


def test_released_alerts_are_in_line_again_and_done_ones_are_gone(tmp_path: Path) -> None:
    known = spool(tmp_path)
    known.put(alert("a"))
    known.put(alert("b"))
    (first, _), (second, _) = known.lock_entries(2)
    known.unlock(first)
    known.remove(second)
    known.remove(second)
    assert claimed(known) == ["a"]


def test_a_claim_left_behind_is_taken_up_after_a_while(tmp_path: Path) -> None:
    clock = FrozenClock()
    known = spool(tmp_path, clock=clock)
    known.put(alert())
    assert claimed(known) == ["x"]
    clock.advance(119)
    assert known.empty()
    assert claimed(known) == []
    clock.advance(2)
    assert not known.empty()
    assert claimed(known) == ["x"]
    assert claimed(known) == []


CLAIM = """
import sys
from mks_hardening.notify.engine._spool import Spool
from mks_hardening.testing import FrozenClock
known = Spool(sys.argv[1], kind="email", destinations=["ops@example.com"], clock=FrozenClock())
print(len(known.lock_entries(100)), flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_has_claimed_is_taken_up_at_once(tmp_path: Path) -> None:
    known = spool(tmp_path)
    known.put(alert())
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        assert known.empty()  # while it lives, it is the other's
        assert claimed(known) == []
        other.kill()
    assert not known.empty()
    assert claimed(known) == ["x"]
    assert claimed(spool(tmp_path)) == []
    known.close()
    assert claimed(spool(tmp_path)) == ["x"]  # a handler that ends leaves its entries to others


FORK = CLAIM.replace(
    "sys.stdin.read()",
    """import os
if os.fork() == 0:
    known.reset_after_fork()
    print(known.empty(), os.getpid(), flush=True)
sys.stdin.read()""",
)


def test_a_child_neither_takes_nor_keeps_the_claims_of_its_parent(tmp_path: Path) -> None:
    known = spool(tmp_path)
    known.put(alert())
    with subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "1\n"
        empty, child = parent.stdout.readline().split()
        assert empty == "True"
        assert claimed(known) == []
        parent.kill()
        parent.wait()
        os.kill(int(child), 0)  # it still lives
        assert claimed(known) == ["x"]


def test_without_locks_a_claim_is_left_behind_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    clock = FrozenClock()
    one, other = spool(tmp_path, clock=clock), spool(tmp_path, clock=clock)
    one.put(alert())
    assert claimed(one) == ["x"]
    assert claimed(other) == []
    clock.advance(121)
    assert claimed(other) == ["x"]


def test_a_name_keeps_what_waits_when_the_address_changes(tmp_path: Path) -> None:
    old = Spool(tmp_path, kind="slack", destinations=["name", "https://old"], clock=FrozenClock())
    Spool(tmp_path, kind="slack", destinations=["https://old"], clock=FrozenClock()).put(alert("before"))
    old.put(alert("named"))
    new = Spool(tmp_path, kind="slack", destinations=["name", "https://new"], clock=FrozenClock())
    assert new.count_foreign() == 1  # put there before there was a name
    assert claimed(new) == ["named"]
    assert claimed(old) == ["before"]


def test_kinds_share_a_folder_and_leave_each_other_alone(tmp_path: Path) -> None:
    mail, slack = spool(tmp_path, kind="email"), spool(tmp_path, kind="slack")
    mail.put(alert("m"))
    slack.put(alert("s"))
    assert claimed(mail) == ["m"]
    assert claimed(slack) == ["s"]


def test_destinations_share_a_folder_and_leave_each_other_alone(tmp_path: Path) -> None:
    mine, theirs = spool(tmp_path), spool(tmp_path, destination="others@example.com")
    mine.put(alert("m"))
    theirs.put(alert("t"))
    (tmp_path / "email-000000000001000-old.json").touch()  # written before entries had a destination
    assert (mine.count_foreign(), theirs.count_foreign()) == (2, 2)
    assert claimed(mine) == ["m"]
    assert (mine.empty(), theirs.empty()) == (True, False)
    assert claimed(theirs) == ["t"]
    assert (tmp_path / "email-000000000001000-old.json").exists()


def test_a_claim_left_behind_is_not_taken_up_for_another_destination(tmp_path: Path) -> None:
    clock = FrozenClock()
    mine, theirs = (
        spool(tmp_path, clock=clock),
        spool(tmp_path, clock=clock, destination="others@example.com"),
    )
    mine.put(alert("m"))
    assert claimed(mine) == ["m"]
    clock.advance(3600)
    assert theirs.empty()
    assert claimed(theirs) == []
    assert claimed(mine) == ["m"]


def test_the_address_is_not_on_disk_and_entries_do_not_show_that_they_share_one(tmp_path: Path) -> None:
    known = spool(tmp_path, kind="slack", destination="https://hooks.example.com/T0/B0/hunter22")
    for name in ("a", "b"):
        known.put(alert(name))
    names = [file.name for file in tmp_path.iterdir()]
    assert len({name.rpartition("-")[2] for name in names}) == 2
    assert "hunter22" not in "".join(
        [*names, *(file.read_text() for file in tmp_path.iterdir()), repr(known)]
    )


def test_others_do_not_take_the_room(tmp_path: Path) -> None:
    mine, theirs = spool(tmp_path, max_files=1), spool(tmp_path, destination="others@example.com")
    for name in "ab":
        theirs.put(alert(name))
    mine.put(alert("m"))
    assert claimed(mine) == ["m"]


def test_a_full_spool_refuses_the_new_one(tmp_path: Path) -> None:
    known = spool(tmp_path, max_files=2)
    known.put(alert("a"))
    known.put(alert("b"))
    with pytest.raises(OSError, match="the spool is full with 2 alerts"):
        known.put(alert("c"))
    assert claimed(known) == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"version": 1}',
        b'{"version": 99, "id": "x"}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"version": 1, **alert()._asdict(), "fields": None}).encode(),
        json.dumps({"version": 1, **alert()._asdict(), "created": "soon"}).encode(),
    ],
)
def test_what_is_not_ours_is_put_out_of_the_way(tmp_path: Path, content: bytes) -> None:
    known = spool(tmp_path)
    known.put(alert("bad"))
    (bad,) = tmp_path.iterdir()
    bad.write_bytes(content)
    known.put(alert("good"))
    assert claimed(known) == ["good"]
    assert bad.with_name(f"{bad.name}.unreadable").exists()
    assert known.empty()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello")
    known = spool(tmp_path)
    assert known.empty()
    assert claimed(known) == []
    assert (tmp_path / "README").read_text() == "hello"


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    folder, target = tmp_path / "spool", tmp_path / "target"
    known = spool(folder)
    (folder / file_name(known)).symlink_to(target)
    known.put(alert())
    assert not target.exists()
    assert claimed(known) == ["x"]


def test_a_folder_that_vanished_is_an_error_of_the_system_and_no_crash(tmp_path: Path) -> None:
    known = spool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(OSError, match="No such file"):
        known.put(alert())
    assert known.empty()
    assert claimed(known) == []


def test_a_draft_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    known = spool(tmp_path)
    (tmp_path / file_name(known)).mkdir()
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        known.put(alert())
    assert [file.name for file in tmp_path.iterdir()] == [file_name(known)]


@pytest.fixture
def flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What is flushed to the disk, with the visible names in the folder at that moment."""
    seen: list[tuple[str, list[str]]] = []

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        content = "folder" if path.is_dir() else json.loads(path.read_bytes())["id"]
        seen.append((content, sorted(file.name for file in tmp_path.glob("email-*"))))

    monkeypatch.setattr(os, "fsync", watched)
    return seen


def test_an_alert_is_flushed_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, flushed: list[tuple[str, list[str]]]
) -> None:
    spool(tmp_path).put(alert())
    (stored,) = tmp_path.iterdir()
    assert flushed == [("x", []), ("folder", [stored.name])]


def test_alerts_of_a_process_that_ends_are_all_written_and_then_flushed(
    tmp_path: Path, flushed: list[tuple[str, list[str]]]
) -> None:
    known = spool(tmp_path)
    for name in "ab":
        known.put(alert(name), flush=False)
    assert flushed == []
    names = sorted(file.name for file in tmp_path.iterdir())
    known.flush(1)
    known.flush(1)
    assert flushed == [("a", names), ("b", names), ("folder", names)]


def test_flushing_ends_in_time_and_overlooks_what_was_taken(
    tmp_path: Path, flushed: list[tuple[str, list[str]]]
) -> None:
    clock = FrozenClock()
    known = spool(tmp_path, clock=clock)
    for name in "abc":
        known.put(alert(name), flush=False)
    assert claimed(known, 1) == ["a"]
    known.flush(1)
    assert [what for what, _ in flushed] == ["b", "c", "folder"]
    known.put(alert("d"), flush=False)
    known.flush(-1)
    assert [what for what, _ in flushed[3:]] == ["folder"]


def test_a_disk_that_cannot_flush_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    known = spool(tmp_path)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        known.put(alert())
    assert list(tmp_path.iterdir()) == []


def test_many_threads_get_each_alert_once(tmp_path: Path) -> None:
    known = spool(tmp_path)
    names = {f"a{number:03d}" for number in range(200)}
    for name in names:
        known.put(alert(name))
    got: list[str] = []

    def take() -> None:
        other = spool(tmp_path)
        while several := other.lock_entries(7):
            got.extend(one.id for _, one in several)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(names)
