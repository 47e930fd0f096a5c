"""The files of the edge on a disk that is full, and while somebody is still writing them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mks_hardening.wsgi import ClientRules, MaintenanceSwitch
from testbed.polling import wait_until
from testbed.small_disk import small_disk as mounted

COMMAND = [sys.executable, "-m", "mks_hardening", "maintenance"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for one more file."""
    with mounted(tmp_path / "small", "size=16k", "nr_inodes=2") as folder:
        yield folder


def test_maintenance_mode_on_a_full_disk(small_disk: Path) -> None:
    switch = MaintenanceSwitch(small_disk / "maintenance", check_interval=0)
    (small_disk / "other").touch()
    done = subprocess.run([*COMMAND, "on", str(switch.path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) != (0, "maintenance mode is on\n")
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert not switch.is_on()
    with pytest.raises(OSError, match="No space left"):
        switch.turn_on()
    (small_disk / "other").unlink()
    (small_disk / "maintenance").write_bytes(b"x" * 16_384)  # all blocks
    assert switch.is_on()
    switch.turn_on()
    switch.turn_off()
    assert not switch.is_on()


def test_a_maintenance_file_counts_from_its_first_byte_to_its_last(tmp_path: Path) -> None:
    switch = MaintenanceSwitch(tmp_path / "maintenance", check_interval=0)
    with switch.path.open("w") as file:
        assert switch.is_on()
        file.write("half of a rea")
        file.flush()
        assert switch.is_on()
    switch.path.unlink()
    assert not switch.is_on()


@pytest.mark.slow
def test_rules_that_are_still_being_written_are_not_used(tmp_path: Path) -> None:
    """The first half of a file is often valid, and denies nobody."""
    file = tmp_path / "clients"
    file.write_text("deny 203.0.113.1\n")
    rules = ClientRules(file=file, check_interval=1.0)
    assert rules.verdict("203.0.113.1") == "deny"
    whole = (
        f"# {'these clients are not served ' * 2}\ndeny 203.0.113.1\nallow 192.0.2.1\ndeny 198.51.100.0/24\n"
    )
    with file.open("w") as stream:
        for start in range(0, len(whole), 3):
            stream.write(whole[start : start + 3])
            stream.flush()
            time.sleep(0.06)  # more than two checks see a part
            assert rules.verdict("203.0.113.1") == "deny"
    wait_until(lambda: rules.verdict("198.51.100.9") == "deny", what="the new rules")
    assert rules.verdict("192.0.2.1") == "allow"
    (tmp_path / "new").write_text("deny 198.51.100.9\n")
    (tmp_path / "new").rename(file)  # as the documentation recommends
    wait_until(lambda: rules.verdict("203.0.113.1") == "", what="the renamed file")
