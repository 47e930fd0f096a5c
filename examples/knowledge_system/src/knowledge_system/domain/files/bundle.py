"""Zip files of articles, read as untrusted input: no entry is unpacked before its size is checked."""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import IO, Final, NamedTuple, cast

_EPOCH: Final = (2020, 1, 1, 0, 0, 0)
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1
_PART: Final = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,200}")
_ADDED: Final = re.compile(r"(?:^|/)(?:__MACOSX/|\._|(?:\.DS_Store|Thumbs\.db|desktop\.ini)$)", re.IGNORECASE)
"""Hidden files that desktop systems add."""
_CHUNK: Final = 65_536
_LISTED: Final = b"PK\x01\x02"
"""Signature of a central directory header (APPNOTE 4.3.12), of which each folder has one too."""


class Limits(NamedTuple):
    """Maximum size of a bundle: number of entries, unpacked bytes of one and of all, compression ratio."""

    entries: int = 2000
    one: int = 16 * 1024 * 1024
    all: int = 64 * 1024 * 1024
    ratio: int = 200


class BundleError(ValueError):
    """The bundle is rejected.

    Attributes:
        code: ``bundle-damaged``, ``bundle-name``, ``bundle-kind`` or ``bundle-too-large``.
        entry: name of the rejected entry; empty if the whole bundle is rejected.
    """

    def __init__(self, code: str, entry: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.entry = entry


def write_zip(entries: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield a zip file in chunks, holding one entry in memory at a time; equal entries give equal bytes.

    Files that are already compressed are stored without compression.
    """
    window = _ChunkBuffer()
    with zipfile.ZipFile(cast("IO[bytes]", window), "w") as bundle:
        for name, content in entries:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".md") else zipfile.ZIP_STORED
            bundle.writestr(info, content)
            yield window.taken()
    yield window.taken()


class _ChunkBuffer:
    """A file that holds only what was written since the last ``taken``.

    ``zipfile`` seeks back to the header of the current entry when its size is known, and never further.
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
        """Do nothing: there is no buffer."""

    def taken(self) -> bytes:
        content = self._kept.getvalue()
        self._gone += len(content)
        self._kept = BytesIO()
        return content


def read_zip(content: bytes, limits: Limits) -> Mapping[str, bytes]:
    """Return the files of a bundle by name.

    Sizes are checked against the directory first, and again while unpacking, as the directory may be forged.

    Raises:
        BundleError: a path traversal or duplicate name, a link, an encrypted entry, too large, damaged.
    """
    if content.count(_LISTED) > 2 * limits.entries:  # before objects are made for a million folders
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
    """Open a bundle; names without an encoding flag are UTF-8 (macOS) or CP932 (Japanese Windows)."""
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
        name = info.orig_filename  # as stored; ``filename`` is cut off at a NUL
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
