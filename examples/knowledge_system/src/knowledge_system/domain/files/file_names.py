"""Safe file names, close to those that users chose, and the ``Content-Disposition`` header."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote

_LONGEST: Final = 80
"""Characters before the extension: 240 bytes in Japanese; file systems allow 255 bytes."""
_PATH: Final = re.compile(r"[/\\]")
_REFUSED: Final = re.compile(r'[<>:"|?*%;]')
# Reserved device names of Windows, with any extension.
_DEVICE: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


def plain_name(given: str, endings: tuple[str, ...]) -> str:
    r"""Return a name without path, control, invisible or bidi characters, with an extension that fits the type.

    Args:
        given: name from the client; only the last part of ``C:\fakepath\x.jpg`` or ``../../x`` is used.
        endings: extensions of the type; the first is appended if the name has none of them.
    """
    last = unicodedata.normalize("NFC", _PATH.split(given)[-1])
    # Categories C (controls, format, surrogates, unassigned), line and paragraph separators.
    seen = "".join(c for c in last if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029")
    seen = _REFUSED.sub("_", " ".join(seen.split())).rstrip(". ")
    ending = next((each for each in endings if seen.lower().endswith(each)), None)
    stem = (seen if ending is None else seen[: -len(ending)]).strip(". ")[:_LONGEST].strip(". ") or "file"
    if _DEVICE.fullmatch(stem):
        stem = f"_{stem}"
    return stem + (ending or endings[0])


def content_disposition(name: str, *, inline: bool) -> str:
    """Build the header value (RFC 6266), with a name in RFC 8187 encoding and an ASCII fallback."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^ !#$&+.0-9A-Za-z^_`|~()\-]", "_", plain).strip()
    if plain.startswith("."):
        plain = f"file{plain}"
    kind = "inline" if inline else "attachment"
    value = f'{kind}; filename="{plain or "file"}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"
