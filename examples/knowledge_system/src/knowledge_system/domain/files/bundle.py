"""Zip files of articles, read as if an enemy had packed them: nothing is unpacked that was not measured before."""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import IO, Final, NamedTuple, cast

__all__ = ["BundleError", "Limits", "packed", "unpack"]

_EPOCH: Final = (2020, 1, 1, 0, 0, 0)
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1
_PART: Final = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,200}")
_ADDED: Final = re.compile(r"(?:^|/)(?:__MACOSX/|\._|(?:\.DS_Store|Thumbs\.db|desktop\.ini)$)", re.IGNORECASE)
"""By desktops, which nobody sees there."""
_CHUNK: Final = 65_536
_LISTED: Final = b"PK\x01\x02"
"""Begins each line of the directory (APPNOTE 4.3.12), of which there is one for each folder too."""


class Limits(NamedTuple):
    """How much a bundle may hold, unpacked."""

    entries: int = 2000
    one: int = 16 * 1024 * 1024
    all: int = 64 * 1024 * 1024
    ratio: int = 200


class BundleError(ValueError):
    """A bundle that is not unpacked.

    Attributes:
        code: ``bundle-damaged``, ``bundle-name``, ``bundle-kind`` or ``bundle-too-large``.
        entry: which entry is at fault; empty for the whole.
    """

    def __init__(self, code: str, entry: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.entry = entry


def packed(entries: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A bundle piece by piece, as large as its largest entry in memory; equal entries give equal bytes.

    What is compressed already is stored as it is.
    """
    window = _Window()
    with zipfile.ZipFile(cast("IO[bytes]", window), "w") as bundle:
        for name, content in entries:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".md") else zipfile.ZIP_STORED
            bundle.writestr(info, content)
            yield window.taken()
    yield window.taken()


class _Window:
    """A file of which only what was written since it was last taken is there.

    The head of an entry is written anew when its length is known, and before that no further.
    """

    def __init__(self) -> None:
        self._gone = 0
        self._kept = BytesIO()

    def write(self, data: bytes) -> int:
        return self._kept.write(data)

    def tell(self) -> int:
        return self._gone + self._kept.tell()

    def seek(self, offset: int) -> int:
        return self._gone + self._kept.seek(offset - self._gone)

    def flush(self) -> None:
        """Nothing waits anywhere."""

    def taken(self) -> bytes:
        content = self._kept.getvalue()
        self._gone += len(content)
        self._kept = BytesIO()
        return content


def unpack(content: bytes, limits: Limits) -> Mapping[str, bytes]:
    """The files of a bundle by their names.

    Sizes are taken from the directory first, and counted again while unpacking, where the directory may have lied.

    Raises:
        BundleError: a name that leads elsewhere or comes twice, a link, a password, too large, damaged.
    """
    if content.count(_LISTED) > 2 * limits.entries:  # before each of a million folders is made an object
        raise BundleError("bundle-too-large")
    try:
        with _opened(content) as bundle:
            files = [
                info for info in bundle.infolist() if not (info.is_dir() or _ADDED.search(info.orig_filename))
            ]
            _check(files, limits)
            return {unicodedata.normalize("NFC", info.filename): _content(bundle, info) for info in files}
    except BundleError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise BundleError("bundle-damaged") from error


def _opened(content: bytes) -> zipfile.ZipFile:
    """Names that do not say in which letters they are: UTF-8 of macOS, else those of a Japanese Windows."""
    try:
        return zipfile.ZipFile(BytesIO(content), metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(BytesIO(content), metadata_encoding="cp932")


def _check(files: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    if len(files) > limits.entries:
        raise BundleError("bundle-too-large")
    names: set[str] = set()
    total = 0
    for info in files:
        name = info.orig_filename  # as it stands there; ``filename`` ends at a NUL
        shown = name[:100]
        parts = name.split("/")
        if any(part in {".", ".."} or part != part.strip() or not _PART.fullmatch(part) for part in parts):
            raise BundleError("bundle-name", shown)
        same = unicodedata.normalize("NFC", name).casefold()
        if same in names:
            raise BundleError("bundle-name", shown)
        names.add(same)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG} or info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise BundleError("bundle-kind", shown)
        total += info.file_size
        packed = max(info.compress_size, 1)
        too_dense = info.file_size > _CHUNK and info.file_size > packed * limits.ratio
        if info.file_size > limits.one or total > limits.all or too_dense:
            raise BundleError("bundle-too-large", shown)


def _content(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with bundle.open(info) as entry:
        content = entry.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise BundleError("bundle-damaged", info.filename[:100])
    return content
