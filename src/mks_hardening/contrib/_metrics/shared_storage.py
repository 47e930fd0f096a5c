"""Metric values shared by all processes of an application, in the files of prometheus_client's multiprocess mode.

Each process owns a *slot*: numbered files for counters, histograms and gauges, protected by a file lock that the
kernel releases when the process ends, even if it crashes. A new process takes a free slot and continues its counts.
Counters therefore never decrease, and there are never more files than the highest number of concurrent processes.
Gauges belong to living processes: a slot begins without them, and ``forget_dead`` removes those of ended processes.

The format is the one that ``prometheus_client.multiprocess.MultiProcessCollector`` reads: a 32-bit number of bytes
in use, four bytes of padding, then entries of a 32-bit length, a key in JSON padded to eight bytes, and two doubles
(value, time). A value is written by one store of eight aligned bytes, so a reader never sees half of it.
prometheus_client's own writer, ``MmapedDict``, is not used: an update takes three times as long (0.6 µs), its files
are sparse, so that a full disk ends the process (SIGBUS), and it follows symbolic links.
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

from mks_hardening.contrib._metrics.metric_definitions import Metric
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
    """Metric values that every process with the same directory exposes.

    A slot is taken when the first cells are allocated. If the disk refuses, the process counts in memory only, and
    logs one warning.

    Args:
        directory: an existing directory that belongs to this application only.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = -1
        self._slot = 0
        self._files: dict[str, _NumberFile] = {}
        self._has_failed = False

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Return cells for a label set, with the values of the previous process in this slot."""
        try:
            cells = self._file(metric.kind).cells(_keys(metric, labels))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                _logger.warning("metrics of this process are not exported (%s)", type(error).__name__)
            return MemoryMetricStorage().cells(metric, labels)
        # The time follows each value.
        return (
            cells._replace(places=(cells.places[0], cells.places[0] + 1)) if metric.kind == "level" else cells
        )

    def close(self) -> None:
        """Release the slot; in a forked child it stays with the parent. May be called twice."""
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
    """Remove the gauges of processes that have ended, even if they crashed."""
    for slot in _slots(directory):
        if any(_path(directory, kind, slot).exists() for kind in _OF_THE_LIVING):
            with _free_slot(directory, slot) as free:
                if free:
                    _remove_gauges(directory, slot)


def remove_free_slots(directory: Path) -> None:
    """Remove the counts of ended processes, at the start of an application."""
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
    """Return an open file that holds the lock of a slot, and the number of the slot."""
    for slot in range(1, _MOST_SLOTS + 1):
        lock = _try_lock(_lock_path(directory, slot), os.O_RDWR | os.O_CREAT)
        if lock is not None:
            return lock, slot
    raise OSError(f"{_MOST_SLOTS} processes already use the directory")


def _try_lock(path: Path, flags: int) -> int | None:
    import fcntl

    opened = os.open(path, flags | _SAFE, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # ``remove_free_slots`` may have unlinked it between the two calls; no other process would find the file.
        if os.fstat(opened).st_nlink:
            return opened
    os.close(opened)
    return None


@contextmanager
def _free_slot(directory: Path, slot: int) -> Generator[bool]:
    """Yield whether the slot is free, and lock it until the end of the block."""
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
    """Return the keys of all cells, in the format of ``prometheus_client.mmap_dict.mmap_key``."""
    values = dict(zip(metric.labels, labels, strict=True))
    if metric.kind != "histogram":
        return [_key(metric, metric.name, values)]
    bounds = [*(repr(float(bound)) for bound in metric.buckets), "+Inf"]
    buckets = [_key(metric, f"{metric.name}_bucket", {**values, "le": bound}) for bound in bounds]
    return [*buckets, _key(metric, f"{metric.name}_sum", values)]


def _key(metric: Metric, sample: str, values: dict[str, str]) -> str:
    return json.dumps([metric.name.removesuffix("_total"), sample, values, metric.help], sort_keys=True)


class _NumberFile:
    """One file of a slot: named values, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._file = -1
        try:
            self._load(path)
        except (ValueError, struct.error):  # a crash during a write, or another format
            self.close()
            path.unlink()
            self._load(path)

    def _load(self, path: Path) -> None:
        self._file = _opened(path)
        self._map(os.fstat(self._file).st_size)
        self._places = dict(_entries(self._bytes))
        self._used: int = _LENGTH.unpack_from(self._bytes, 0)[0]

    def close(self) -> None:
        """Close the file; cells that were handed out stay valid."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def cells(self, keys: list[str]) -> MetricCells:
        """Return the cells for these keys; new ones begin at zero."""
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
            self._bytes[: _LENGTH.size] = _LENGTH.pack(end)  # only now: readers stop here
            self._used = end
            self._places[key] = (end - _NUMBERS.size) // 8
        return MetricCells(
            cast(MutableSequence[float], self._numbers), tuple(self._places[key] for key in keys)
        )

    def _grow(self, size: int) -> None:
        _allocate(self._file, size)
        self._map(size)

    def _map(self, size: int) -> None:
        # Cells handed out before keep the old mapping, which shows the same pages.
        self._bytes = memoryview(mmap.mmap(self._file, size))
        self._numbers = self._bytes[: size // 8 * 8].cast("d")


def _allocate(file: int, size: int) -> None:
    """Set the size of a file and allocate all of its blocks.

    In a sparse file, a store into the mapping would end the process (SIGBUS) when the disk is full.
    """
    allocate = getattr(
        os, "posix_fallocate", None
    )  # missing on macOS, refused by some C libraries and file systems
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
        # A reader must never see a file without a header, so the file is renamed once it has one.
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
    """Yield every key with the index of its value.

    Raises:
        ValueError: the file has another format.
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
