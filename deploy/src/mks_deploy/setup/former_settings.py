"""Former settings of a host, kept at each change, so that they can be applied again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["find_former", "keep_former", "list_former"]

_KEPT: Final = 20
_NAME: Final = re.compile(r"\d{8}T\d{6}Z")


def keep_former(settings: Settings, new: str, *, now: datetime) -> None:
    """Keep the present ``deploy.toml`` of the host, if the new one differs; delete the oldest beyond twenty."""
    present = Path(settings.paths.config) / "deploy.toml"
    try:
        text = present.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    former = list_former(settings)
    if text == new or (former and former[-1].read_text(encoding="utf-8") == text):
        return
    folder = _folder(settings)
    folder.mkdir(mode=0o755, exist_ok=True)
    replace_file(folder / f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.toml", text)
    for old in list_former(settings)[:-_KEPT]:
        old.unlink()


def list_former(settings: Settings) -> list[Path]:
    """Return the kept files, oldest first."""
    return sorted(each for each in _folder(settings).glob("*.toml") if _NAME.fullmatch(each.stem))


def find_former(settings: Settings, name: str = "") -> Path | None:
    """Return the kept file of a name; by default the newest that differs from the present settings."""
    present = (Path(settings.paths.config) / "deploy.toml").read_text(encoding="utf-8")
    found = [
        each
        for each in list_former(settings)
        if (each.stem == name if name else each.read_text(encoding="utf-8") != present)
    ]
    return found[-1] if found else None


def _folder(settings: Settings) -> Path:
    return Path(settings.paths.config) / "former"
