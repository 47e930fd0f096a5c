"""Numbers that all processes of one application share, in the files of prometheus_client's multiprocess mode.

Each process owns a *slot*: files for counters, histograms and gauges under one number, held by a lock that the
kernel lets go when the process ends, however it ends. Whoever starts next takes a free slot and goes on with its
counts, so that counters never go back, and there are never more files than there were processes at one time.
Gauges are of the living alone: a slot begins without, and ``forget_dead`` removes those of the dead.

The form is the one that ``prometheus_client.multiprocess.MultiProcessCollector`` reads: a 32-bit number of bytes in
use, four bytes of padding, then entries of a 32-bit length, a key in JSON padded to eight bytes, and two doubles
(value, time). A number is written by one store of eight aligned bytes, so a reader never sees half of it.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import re
import struct
from collections.abc import Generator, Iterator, MutableSequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast

from mks_hardening.contrib._metrics.definitions import Metric
from mks_hardening.contrib._metrics.storage import MemoryMetricStorage, MetricCells

__all__ = ["SharedMetricStorage", "forget_dead", "remove_free_slots"]

_FIRST: Final = 8
_SMALLEST: Final = 1 << 16
_MOST_SLOTS: Final = 4096
_OF_THE_LIVING: Final = {"gauge": "gauge_livesum", "level": "gauge_livemostrecent"}
_PREFIXES: Final = {"counter": "counter", "histogram": "histogram", **_OF_THE_LIVING}
_SLOT: Final = re.compile(r"mks(\d+)\.lock").fullmatch
_LENGTH: Final = struct.Struct("i")
_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NUMBERS: Final = struct.Struct("dd")
_NOT_OFFERED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_logger: Final = logging.getLogger("mks_hardening.metrics")


class SharedMetricStorage:
    """Numbers that every process with the same directory shows.

    A slot is taken when the first cells are asked for. Where the disk refuses them, the process counts for itself
    alone, and says so once.

    Args:
        directory: exists, and belongs to this application alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = -1
        self._slot = 0
        self._files: dict[str, _NumberFile] = {}
        self._faulty = False

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Cells for this set, as the predecessor in this slot left them."""
        try:
            cells = self._file(metric.kind).cells(_keys(metric, labels))
        except OSError as error:
            if not self._faulty:
                self._faulty = True
                _logger.warning("metrics of this process are not shown (%s)", type(error).__name__)
            return MemoryMetricStorage().cells(metric, labels)
        # Behind each value stands its time.
        return (
            cells._replace(places=(cells.places[0], cells.places[0] + 1)) if metric.kind == "level" else cells
        )

    def close(self) -> None:
        """Let go of the slot; in a forked child it stays its parent's. Harmless when called twice."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _file(self, kind: str) -> _NumberFile:
        if self._lock < 0:
            self._lock, self._slot = _claim(self._directory)
            _remove_gauges(self._directory, self._slot)
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = _NumberFile(_path(self._directory, kind, self._slot))
        return file


def forget_dead(directory: Path) -> None:
    """Remove the gauges of processes that ended, however they ended."""
    for slot in _slots(directory):
        if any(_path(directory, kind, slot).exists() for kind in _OF_THE_LIVING):
            with _free_slot(directory, slot) as free:
                if free:
                    _remove_gauges(directory, slot)


def remove_free_slots(directory: Path) -> None:
    """Forget all that processes which have ended counted; for the start of an application."""
    for slot in _slots(directory):
        with _free_slot(directory, slot) as free:
            if free:
                for kind in _PREFIXES:
                    _path(directory, kind, slot).unlink(missing_ok=True)
                _lock_path(directory, slot).unlink(missing_ok=True)


# --- slots


def _remove_gauges(directory: Path, slot: int) -> None:
    for kind in _OF_THE_LIVING:
        _path(directory, kind, slot).unlink(missing_ok=True)


def _path(directory: Path, kind: str, slot: int) -> Path:
    return directory / f"{_PREFIXES[kind]}_mks{slot}.db"


def _lock_path(directory: Path, slot: int) -> Path:
    return directory / f"mks{slot}.lock"


def _slots(directory: Path) -> list[int]:
    return sorted(int(match[1]) for file in directory.iterdir() if (match := _SLOT(file.name)))


def _claim(directory: Path) -> tuple[int, int]:
    """An open file that holds the lock of a slot, and the number of that slot."""
    for slot in range(1, _MOST_SLOTS + 1):
        lock = _try_lock(_lock_path(directory, slot), os.O_RDWR | os.O_CREAT)
        if lock is not None:
            return lock, slot
    raise OSError(f"{_MOST_SLOTS} processes count in one directory")


def _try_lock(path: Path, flags: int) -> int | None:
    import fcntl

    opened = os.open(path, flags | _SAFE, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Unlinked by ``remove_free_slots`` between the two calls: nobody else would find it.
        if os.fstat(opened).st_nlink:
            return opened
    os.close(opened)
    return None


@contextmanager
def _free_slot(directory: Path, slot: int) -> Generator[bool]:
    """Whether nobody has the slot; nobody gets it meanwhile."""
    lock = None
    with suppress(FileNotFoundError):
        lock = _try_lock(_lock_path(directory, slot), os.O_RDWR)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


# --- files


def _keys(metric: Metric, labels: tuple[str, ...]) -> list[str]:
    """The keys of all cells, as ``prometheus_client.mmap_dict.mmap_key`` makes them."""
    values = dict(zip(metric.labels, labels, strict=True))
    if metric.kind != "histogram":
        return [_key(metric, metric.name, values)]
    bounds = [*(repr(float(bound)) for bound in metric.buckets), "+Inf"]
    buckets = [_key(metric, f"{metric.name}_bucket", {**values, "le": bound}) for bound in bounds]
    return [*buckets, _key(metric, f"{metric.name}_sum", values)]


def _key(metric: Metric, sample: str, values: dict[str, str]) -> str:
    return json.dumps([metric.name.removesuffix("_total"), sample, values, metric.help], sort_keys=True)


class _NumberFile:
    """One file of a slot: named numbers, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._places: dict[str, int] = {}
        try:
            self._file = _opened(path)
            self._map(os.fstat(self._file).st_size)
            self._places.update(_entries(self._bytes))
        except (ValueError, struct.error):  # a crash in the middle of a write, or another form
            self.close()
            path.unlink()
            self._places.clear()
            self._file = _opened(path)
            self._map(os.fstat(self._file).st_size)

    def close(self) -> None:
        """Close the file; cells that were handed out live on."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def cells(self, keys: list[str]) -> MetricCells:
        """The cells under these keys; what is new begins at zero."""
        new = [key for key in keys if key not in self._places]
        entries = [_entry(key) for key in new]
        needed = self._used + sum(map(len, entries))
        size = len(self._bytes)
        if needed > size:
            while needed > size:
                size *= 2
            self._grow(size)
        for key, entry in zip(new, entries, strict=True):
            end = self._used + len(entry)
            self._bytes[self._used : end] = entry
            self._used = end  # only now: a reader looks no further than this
            self._places[key] = (end - _NUMBERS.size) // 8
        return MetricCells(
            cast(MutableSequence[float], self._numbers), tuple(self._places[key] for key in keys)
        )

    @property
    def _used(self) -> int:
        used: int = _LENGTH.unpack_from(self._bytes, 0)[0]
        return used

    @_used.setter
    def _used(self, used: int) -> None:
        self._bytes[: _LENGTH.size] = _LENGTH.pack(used)

    def _grow(self, size: int) -> None:
        _allocate(self._file, size)
        self._map(size)

    def _map(self, size: int) -> None:
        # Cells handed out before keep the old mapping, which shows the same pages.
        self._bytes = memoryview(mmap.mmap(self._file, size))
        self._numbers = self._bytes[: size // 8 * 8].cast("d")


def _allocate(file: int, size: int) -> None:
    """Let a file have so many bytes, of which none is missing on the disk.

    A sparse file would end the process (SIGBUS) at a store into the mapping, once the disk is full.
    """
    allocate = getattr(
        os, "posix_fallocate", None
    )  # macOS has none, some C libraries and file systems refuse it
    if allocate is not None:
        try:
            allocate(file, 0, size)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        else:
            return
    start = os.fstat(file).st_size
    while start < size:
        start += os.pwrite(file, bytes(size - start), start)


def _opened(path: Path) -> int:
    if not path.exists():
        # A reader must never see a file without its head, so it gets its name when it has one.
        new = path.with_suffix(".new")
        made = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _SAFE, 0o600)
        try:
            _allocate(made, _SMALLEST)
            os.pwrite(made, _LENGTH.pack(_FIRST), 0)
        finally:
            os.close(made)
        new.rename(path)
    return os.open(path, os.O_RDWR | _SAFE)


def _entry(key: str) -> bytes:
    encoded = key.encode()
    padding = 8 - (len(encoded) + _LENGTH.size) % 8
    return _LENGTH.pack(len(encoded)) + encoded + b" " * padding + _NUMBERS.pack(0.0, 0.0)


def _entries(data: memoryview) -> Iterator[tuple[str, int]]:
    """Every key with the place of its number.

    Raises:
        ValueError: not such a file.
    """
    (used,) = _LENGTH.unpack_from(data, 0)
    position = _FIRST
    if not _FIRST <= used <= len(data):
        raise ValueError("the file is shorter than it says")
    while position < used:
        (length,) = _LENGTH.unpack_from(data, position)
        start = position + _LENGTH.size
        end = start + length + 8 - (length + _LENGTH.size) % 8
        if length <= 0 or end + _NUMBERS.size > used:
            raise ValueError("an entry is longer than the file")
        yield bytes(data[start : start + length]).decode(), end // 8
        position = end + _NUMBERS.size
