"""Passwords known from breaches, looked up in a local file: nothing leaves the machine (ASVS 5.0, 6.2.12).

Two formats are supported. **Text**: one hexadecimal SHA-1 digest per line, sorted, optionally with a colon and a
count, as published by "Have I Been Pwned". **Compact**, made by ``build_breach_filter``: the first bytes of each
SHA-1 digest, sorted, without separators. Both are searched by bisection in a memory map: a look-up reads about
thirty pages of a file of any size.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

from mks_hardening._core.checks import choice, function, path_text, whole_number
from mks_hardening._core.closing import Closing
from mks_hardening.exceptions import ConfigurationError

__all__ = ["BreachedPasswords", "build_breach_filter"]

_MAGIC: Final = b"mks-breached-1\n"
_HEADER: Final = len(_MAGIC) + 1  # one byte more: the number of bytes per digest
_HEX: Final = 40
_LINE: Final = re.compile(rb"([0-9A-Fa-f]{40})(?::([0-9]{1,12}))?\r?\n?")
# Enough to detect a file sorted by count, which "Have I Been Pwned" publishes as well, and few enough to check at
# every start.
_SAMPLES: Final = 64
_PROGRESS_EVERY: Final = 1 << 20


class BreachedPasswords(Closing):
    """A local list of breached passwords, for ``PasswordPolicy(breached=...)``.

    Call it with a password to look it up. The file is mapped, not loaded: all worker processes share one copy in
    the page cache. It may be replaced by renaming another file over it; an open list continues to use the old file.

    Args:
        path: path of a file in one of the two formats.

    Raises:
        ConfigurationError: the file cannot be read, is in neither format, or is not sorted by digest.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path_text(path, parameter="path"))
        try:
            with self.path.open("rb") as file:
                # The map outlives the file object, and keeps the old file when another is renamed over it.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"path must be a readable file of leaked passwords ({type(error).__name__})",
                parameter="path",
            ) from None
        self._table: _Compact | _Text = (
            _Compact(self._map) if self._map[: len(_MAGIC)] == _MAGIC else _Text(self._map)
        )
        if not self._table.is_well_formed():
            self._map.close()
            raise ConfigurationError(
                "path must be a compact filter of this version, or SHA-1 digests in hexadecimal, one per line and "
                "sorted by digest (not by count)",
                parameter="path",
            )

    def __call__(self, password: str) -> bool:
        """Return whether the password is in the list, as typed or in Unicode form NFC."""
        # Also as typed: lists hold the passwords as leaked, which are not normalised.
        forms = {password, unicodedata.normalize("NFC", password)}
        with suppress(UnicodeEncodeError):
            return any(self._table.has(_sha1(form.encode("utf-8"))) for form in forms)
        return False  # a password that cannot be encoded was never hashed

    def close(self) -> None:
        """Close the file; calling it twice is safe."""
        self._map.close()

    def __repr__(self) -> str:
        return f"BreachedPasswords({str(self.path)!r})"


class _Compact:
    """The compact format: digests of one length without separators."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = data[len(_MAGIC)] if len(data) >= _HEADER else 0
        self._number = (len(data) - _HEADER) // self._size if self._size else 0

    def has(self, digest: bytes) -> bool:
        wanted = digest[: self._size]
        place = bisect_left(range(self._number), wanted, key=self._at)
        return place < self._number and self._at(place) == wanted

    def is_well_formed(self) -> bool:
        whole = 4 <= self._size <= 20 and (len(self._data) - _HEADER) % self._size == 0
        return whole and self._number > 0 and _ascending(self._at(place) for place in _samples(self._number))

    def _at(self, place: int) -> bytes:
        start = _HEADER + place * self._size
        return self._data[start : start + self._size]


class _Text:
    """The text format: an offset in the file stands for the first line that begins at or after it."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    def has(self, digest: bytes) -> bool:
        wanted = digest.hex().upper().encode("ascii")
        # Bisect over bytes rather than lines, whose lengths differ.
        place = bisect_left(range(len(self._data)), wanted, key=self._from)
        return self._from(place) == wanted

    def is_well_formed(self) -> bool:
        found = [self._from(place) for place in _samples(len(self._data))]
        hexadecimal = all(_LINE.fullmatch(digest) for digest in found if digest != _LAST)
        return found[0] != _LAST and hexadecimal and _ascending(found)

    def _from(self, place: int) -> bytes:
        start = 0 if place == 0 else self._data.find(b"\n", place - 1) + 1
        if place > 0 and start == 0:
            return _LAST
        return self._data[start : start + _HEX].upper() or _LAST


_LAST: Final = b"\xff"
"""Sorts after every digest."""


def build_breach_filter(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    kind: Literal["sha1", "passwords"] = "sha1",
    min_count: int = 1,
    digest_bytes: int = 6,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a compact filter and return the number of its digests; the target is replaced atomically.

    With 6 bytes per digest, the filter takes a seventh of the space of the text. With a thousand million digests, a
    password that never leaked is refused by mistake once in 280,000 times; with fewer digests, less often.

    Args:
        source: lines ``SHA1`` or ``SHA1:count`` sorted by digest, or a list of passwords.
        target: file to write.
        kind: content of the source: ``sha1`` lines, which are streamed, or ``passwords`` in UTF-8, one per line,
            which are sorted in memory.
        min_count: digests with a smaller count are omitted; lines without a count are kept.
        digest_bytes: number of bytes of each digest to keep, 4 to 20.
        progress: called from time to time with the number of bytes of the source read so far.

    Raises:
        ConfigurationError: a value is out of range, or a line of the source is invalid.
        OSError: the source cannot be read, or the target cannot be written.
    """
    choice(kind, ("sha1", "passwords"), parameter="kind")
    least = whole_number(min_count, parameter="min_count", minimum=1)
    size = whole_number(digest_bytes, parameter="digest_bytes", minimum=4, maximum=20)
    path, origin = (
        Path(path_text(given, parameter=name)) for given, name in ((target, "target"), (source, "source"))
    )
    if progress is not None:
        function(progress, parameter="progress")
    # In the target's directory, as a rename is atomic only within one file system; hidden, so that no pattern
    # matches it.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with origin.open("rb") as lines, draft.open("wb") as out:
            lines_read = _with_progress(lines, progress)
            digests = (
                _parse_digests(lines_read, least) if kind == "sha1" else iter(sorted(_hash_lines(lines_read)))
            )
            number = _write_filter(out, digests, size)
            out.flush()
            # Before the rename: after a power failure the name must not refer to an empty file (ext4 writes data
            # later).
            os.fsync(out.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return number


def _write_filter(out: BinaryIO, digests: Iterator[bytes], size: int) -> int:
    out.write(_MAGIC + bytes([size]))
    number, last = 0, b""
    for digest in digests:
        short = digest[:size]
        if short != last:
            out.write(short)
            number, last = number + 1, short
    if not number:
        raise ConfigurationError("source must hold at least one password", parameter="source")
    return number


def _parse_digests(lines: Iterable[bytes], least: int) -> Iterator[bytes]:
    last = b""
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        digest = found[1].upper() if found else b""
        if found is None or digest < last:
            problem = "is not SHA-1 in hexadecimal" if found is None else "is not in order (sort by digest)"
            raise ConfigurationError(f"line {number} of source {problem}", parameter="source")
        last = digest
        if found[2] is None or int(found[2]) >= least:
            yield bytes.fromhex(digest.decode("ascii"))


def _hash_lines(lines: Iterable[bytes]) -> set[bytes]:
    return {_sha1(line) for line in (line.rstrip(b"\r\n") for line in lines) if line}


def _with_progress(lines: Iterable[bytes], progress: Callable[[int], None] | None) -> Iterator[bytes]:
    read = due = 0
    for line in lines:
        read += len(line)
        if progress is not None and read >= due:
            progress(read)
            due = read + _PROGRESS_EVERY
        yield line
    if progress is not None:
        progress(read)


def _samples(number: int) -> list[int]:
    """Return indexes spread over a file, at which a file that is not sorted by digest would be detected."""
    return sorted({number * part // _SAMPLES for part in range(_SAMPLES)})


def _ascending(digests: Iterable[bytes]) -> bool:
    found = list(digests)
    return found == sorted(found)


def _sha1(data: bytes) -> bytes:
    """Return the digest that lists of breached passwords are indexed by; nothing depends on its strength."""
    return hashlib.sha1(data, usedforsecurity=False).digest()
