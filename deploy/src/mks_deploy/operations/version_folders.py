"""Versions on the host: which there are, and which of them are no longer needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from mks_deploy.operations.operation_log import OperationLog
    from mks_deploy.operations.release import State

__all__ = ["BUILDING", "BUILT", "VersionFolder", "listed_versions", "plan_prune", "prune"]

BUILDING: Final = ".building"
"""File in the folder of a version that ``mks-deploy up`` has begun to build."""
BUILT: Final = ".built"
"""File in such a folder that says that it is complete."""
_NOT_BUILT: Final = "not built"

_PINNED: Final = ".keep"
_DELETING: Final = ".deleting"

Use = Literal["", "running", "previous", "in a slot", "pinned", "current"]
"""Why a version must stay."""


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """One version on the host.

    Attributes:
        name: name of its folder.
        use: why it must stay; empty if nothing needs it.
        moved: when it last got or should have got the requests (ISO 8601); empty if it was never released.
        outcome: how that ended: ``done``, ``refused``, ``unfinished`` or ``begun``; ``not built`` if its build
            failed.
        who: who did it.
        note: its release note.
    """

    name: str
    use: Use
    moved: str = ""
    outcome: str = ""
    who: str = ""
    note: str = ""


def listed_versions(releases: Path, state: State, trail: OperationLog) -> tuple[VersionFolder, ...]:
    """Return the versions of the host: the last released first, those that never were at the end.

    Args:
        releases: folder of the releases.
        state: versions in the slots.
        trail: log of the operations.
    """
    moves = dict[str, Mapping[str, object]]()
    for name, move in _moves(trail.last(_ALL)):
        # A rollback says nothing new: what the release said counts.
        moves[name] = {**move, "note": move.get("note") or moves.get(name, {}).get("note", "")}
    folder = releases / "versions"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    current = (releases / "current").resolve().name
    found = [
        _described(name, _use(name, state, current, folder / name), moves.get(name) or _built(folder / name))
        for name in sorted(names)
        if not name.startswith(".")
    ]
    return tuple(sorted(found, key=lambda version: version.moved, reverse=True))


_ALL: Final = 1_000_000


def _moves(lines: Iterable[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(record, dict)
            and record.get("action") in {"release", "rollback"}
            and record.get("version")
        ):
            yield str(record["version"]), record


def _built(folder: Path) -> Mapping[str, object]:
    failed = (folder / BUILDING).exists() and not (folder / BUILT).exists()
    return {"outcome": _NOT_BUILT} if failed else {}


def _described(name: str, use: Use, record: Mapping[str, object]) -> VersionFolder:
    moved, outcome, who, note = (str(record.get(key, "")) for key in ("time", "outcome", "who", "note"))
    return VersionFolder(name, use, moved, outcome, who, note)


def _use(name: str, state: State, current: str, folder: Path) -> Use:
    if name == state.version:
        return "running"
    if name == state.before:
        return "previous"
    if name in {state.blue, state.green}:
        return "in a slot"
    if name == current:
        return "current"
    return "pinned" if (folder / _PINNED).exists() else ""


def plan_prune(versions: Iterable[VersionFolder], keep: int, *, building: bool = False) -> tuple[str, ...]:
    """Return the versions to delete, oldest first.

    A version that is in use is kept, and so is one that was never released: it may be in preparation. One whose
    build failed goes, unless one is being built. Of the others, the ``keep`` that were released last stay.

    Args:
        versions: versions of the host.
        keep: how many to keep besides those that must stay.
        building: whether a version is being built.
    """
    unused = [version for version in versions if not version.use]
    failed = [version for version in unused if version.outcome == _NOT_BUILT and not building]
    moved = sorted((version for version in unused if version.moved), key=lambda version: version.moved)
    return tuple(version.name for version in (*failed, *moved[: max(len(moved) - keep, 0)]))


def prune(releases: Path, names: Iterable[str]) -> list[str]:
    """Delete versions; return those that were deleted.

    Each folder is renamed first, so that a half-deleted one is never taken for a version. The next call finishes
    what an interrupted one left.

    Raises:
        OSError: a folder could not be deleted.
    """
    folder, deleted = releases / "versions", list[str]()
    # First what an interrupted call left: a version of the same name may have been deployed again.
    for left in sorted(folder.glob(f".*{_DELETING}")):
        shutil.rmtree(left)
    for name in names:
        hidden = folder / f".{name}{_DELETING}"
        (folder / name).rename(hidden)
        deleted.append(name)
        shutil.rmtree(hidden)
    return deleted
