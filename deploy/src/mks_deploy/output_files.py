"""Writing rendered files to a directory: only changed files, each replaced atomically."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

from mks_deploy.atomic_files import replace_file
from mks_deploy.rendering import RenderedFile

__all__ = ["differences", "write"]

_LIST = ".mks-deploy"
"""List of the files rendered here, so that exactly those that are no longer rendered are deleted."""


def differences(files: Iterable[RenderedFile], folder: Path) -> Iterator[str]:
    """Yield a unified diff for each file that differs, and a line for each that is no longer rendered."""
    files = list(files)
    for file in files:
        target = folder / file.path
        before = target.read_text(encoding="utf-8") if target.is_file() else ""
        if before != file.text:
            yield "".join(
                difflib.unified_diff(
                    before.splitlines(keepends=True),
                    file.text.splitlines(keepends=True),
                    f"{folder}/{file.path}" if target.is_file() else "/dev/null",
                    f"rendered/{file.path}",
                )
            )
        elif target.stat().st_mode & 0o777 != file.mode:
            yield f"{folder}/{file.path}: mode {target.stat().st_mode & 0o777:o}, rendered {file.mode:o}\n"
    yield from (
        f"{folder}/{name}: rendered no longer\n" for name in _left_over(files, folder, folder / _LIST)
    )


def write(files: Iterable[RenderedFile], folder: Path, *, listed: Path | None = None) -> int:
    """Write the rendered files to the directory; return the number of files changed, created or deleted.

    Args:
        files: the rendered files.
        folder: where they go.
        listed: file that lists what was written, so that it can be deleted later; in the directory by default.
    """
    files = list(files)
    listed = listed or folder / _LIST
    changed = 0
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = folder / file.path
        _make_folders(folder, file)
        if _is_as_rendered(target, file):
            continue
        replace_file(target, file.text, mode=file.mode)
        changed += 1
    for name in _left_over(files, folder, listed):
        (folder / name).unlink()
        changed += 1
    replace_file(listed, "".join(f"{file.path}\n" for file in files))
    return changed


def _make_folders(folder: Path, file: RenderedFile) -> None:
    """Create directories with mode 755, whatever the umask: copying to ``/`` applies their mode to ``/etc``."""
    for above in reversed(Path(file.path).parents):
        if above.name:
            (folder / above).mkdir(exist_ok=True)
            (folder / above).chmod(0o755)


def _is_as_rendered(target: Path, file: RenderedFile) -> bool:
    return (
        target.is_file()
        and target.read_bytes() == file.text.encode()
        and target.stat().st_mode & 0o777 == file.mode
    )


def _left_over(files: list[RenderedFile], folder: Path, listed: Path) -> list[str]:
    if not listed.is_file():
        return []
    kept = {file.path for file in files}
    before = listed.read_text(encoding="utf-8").splitlines()
    return [
        name for name in before if name not in kept and _inside(folder, name) and (folder / name).is_file()
    ]


def _inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())
