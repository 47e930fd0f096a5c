"""Names of files: as people gave them, without what a name can do to a folder, a header field or a reader."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote

__all__ = ["content_disposition", "plain_name"]

_LONGEST: Final = 80
"""Characters before the ending: 240 bytes in Japanese, and file systems take 255."""
_PATH: Final = re.compile(r"[/\\]")
_REFUSED: Final = re.compile(r'[<>:"|?*%;]')
# Devices of Windows, whatever the ending.
_DEVICE: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


def plain_name(given: str, endings: tuple[str, ...]) -> str:
    r"""A name without path, controls, invisible or turning characters, and with the ending of what the file is.

    Args:
        given: as it came; ``C:\fakepath\x.jpg`` and ``../../x`` are taken by their last part.
        endings: of its kind; the first is added where the name has none of them.
    """
    last = unicodedata.normalize("NFC", _PATH.split(given)[-1])
    # Categories C (controls, format, surrogates, unassigned) and line and paragraph separators.
    seen = "".join(c for c in last if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029")
    seen = _REFUSED.sub("_", " ".join(seen.split())).rstrip(". ")
    ending = next((each for each in endings if seen.lower().endswith(each)), None)
    stem = (seen if ending is None else seen[: -len(ending)]).strip(". ")[:_LONGEST].strip(". ") or "file"
    if _DEVICE.fullmatch(stem):
        stem = f"_{stem}"
    return stem + (ending or endings[0])


def content_disposition(name: str, *, inline: bool) -> str:
    """The header field (RFC 6266, with the name as RFC 8187 writes it, and in ASCII for who reads only that)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^ !#$&+.0-9A-Za-z^_`|~()\-]", "_", plain).strip()
    if plain.startswith("."):
        plain = f"file{plain}"
    kind = "inline" if inline else "attachment"
    told = f'{kind}; filename="{plain or "file"}"'
    return told if plain == name else f"{told}; filename*=UTF-8''{quote(name, safe='')}"
