"""Whatever lies in a folder: only old files of the pattern go, and nothing outside of it changes."""

from __future__ import annotations

import os
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.tasks import clean_folder
from mks_hardening.testing import FrozenClock

NOW, LIMIT = 1_790_000_000.0, 1000.0

names = st.text(st.sampled_from("ab.*[]1-é \n"), min_size=1, max_size=6).filter(
    lambda name: name not in {".", ".."}
)
kinds = st.sampled_from(
    ["file", "link to a file", "link to a folder", "dangling link", "folder", "other name"]
)
ages = st.sampled_from([0.0, LIMIT - 1, LIMIT, LIMIT + 1, 10 * LIMIT, -LIMIT])


@given(
    entries=st.dictionaries(names, st.tuples(kinds, ages), max_size=8),
    pattern=st.sampled_from(["*", "a*", "*.1", "[ab]*", "nothing", "a"]),
    keep=st.sets(names, max_size=2),
)
def test_only_old_files_of_the_pattern_go(
    entries: dict[str, tuple[str, float]], pattern: str, keep: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        outside, folder = Path(scratch, "outside"), Path(scratch, "folder")
        outside.mkdir()
        folder.mkdir()
        precious = outside / "precious"
        precious.write_text("precious")
        os.utime(precious, (0, 0))
        expected = set[str]()
        for name, (kind, age) in entries.items():
            _make(folder / name, kind, outside)
            if kind in {"file", "other name"}:
                moment = 0.0 if kind == "other name" else NOW - age
                os.utime(folder / name, (moment, moment))
                linked_to_kept = kind == "other name" and any(
                    entries[other][0] == "other name" for other in keep & entries.keys()
                )
                old = moment <= NOW - LIMIT
                if old and fnmatchcase(name, pattern) and name not in keep and not linked_to_kept:
                    expected.add(name)
        done = clean_folder(folder, older_than=LIMIT, pattern=pattern, keep=keep, clock=FrozenClock(NOW))
        assert set(done.removed) == expected
        assert {entry.name for entry in os.scandir(folder)} == entries.keys() - expected
        assert precious.read_text() == "precious"
        assert [entry.name for entry in os.scandir(outside)] == ["precious"]


def _make(path: Path, kind: str, outside: Path) -> None:
    if kind == "file":
        path.write_text("lines")
    elif kind == "folder":
        path.mkdir()
    elif kind == "other name":
        os.link(outside / "precious", path)
    else:
        targets = {"link to a file": outside / "precious", "link to a folder": outside}
        path.symlink_to(targets.get(kind, outside / "nowhere"))
