"""A directory of wheels for pip without network access: our built wheel, and the installed packages."""

from __future__ import annotations

import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from testbed import package_map
from testbed.run_python import run_python

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def fill(folder: Path, *wanted: str) -> None:
    """Add the wheels of these requirements and of their dependencies.

    Our own are built from the source tree; where there is none, what is installed comes from a built wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: set[tuple[str, str]] = set()
    open_ones = [Requirement(line) for line in wanted]
    while open_ones:
        requirement = open_ones.pop()
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key in done:
                continue
            done.add(key)
            found = distribution(requirement.name)
            needed = map(Requirement, found.requires or [])
            open_ones += [
                each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    for name in sorted({name for name, _ in done}):
        source = {"mks-hardening": package_map.ROOT, "mks-check": package_map.ROOT / "check"}.get(name)
        if source and (source / "src").exists():
            run_python(BUILD, str(folder), cwd=source)
        else:
            _pack(distribution(name), folder)


def _pack(found: Distribution, folder: Path) -> None:
    """Pack an installed distribution as a wheel again, without what the installation added."""
    stem = f"{found.metadata['Name'].replace('-', '_')}-{Version(found.version)}"
    (metadata,) = (
        file.parent for file in found.files or [] if file.name == "METADATA" and len(file.parts) == 2
    )
    wheel = found.read_text("WHEEL") or ""
    tags = [line.partition(": ")[2] for line in wheel.splitlines() if line.startswith("Tag: ")]
    added = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
    inside = [
        file
        for file in found.files or []
        if file.parts[0] != ".."
        and "__pycache__" not in file.parts
        and not (file.parent == metadata and file.name in added)
    ]
    rows = [f"{file},," for file in [*inside, metadata / "RECORD"]]
    with zipfile.ZipFile(folder / f"{stem}-{_one_tag(tags)}.whl", "w") as archive:
        for file in inside:
            archive.write(str(file.locate()), str(file))
        archive.writestr(str(metadata / "RECORD"), "\n".join([*rows, ""]))


def _one_tag(tags: list[str]) -> str:
    """Return the tags of a wheel as in its file name: differing parts are joined with dots."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)
