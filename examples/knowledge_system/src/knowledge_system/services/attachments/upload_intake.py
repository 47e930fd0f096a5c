"""Validation of uploads: type, size, pixels, virus scan, removal of metadata."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from knowledge_system.domain.files import pictures
from knowledge_system.domain.files.file_names import plain_name
from knowledge_system.domain.files.file_types import HEIC, JPEG, Kind, recognise
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.services.attachments import bounded_process, file_conversion
from knowledge_system.services.attachments.file_store import FileStore, StoreFullError
from knowledge_system.services.attachments.virus_scan import ScanFailedError, scanner

if TYPE_CHECKING:
    from knowledge_system.services.attachments.virus_scan import Scanner
    from knowledge_system.settings import AppSettings

_log = logging.getLogger(__name__)

# Decoding a picture of 50 million pixels takes 200 MB: decode one at a time per process.
_decoding = threading.BoundedSemaphore(1)
# Converting a photograph takes seconds, in a process of its own: one is converted at a time, and one more waits.
# All others are refused, so that they do not occupy the threads of the other requests.
_converting = threading.BoundedSemaphore(1)
_conversions = threading.BoundedSemaphore(2)
_PATIENCE: Final = 20


class Accepted(NamedTuple):
    """A validated file and its metadata."""

    name: str
    kind: Kind
    content: bytes
    thumbnail: bytes = b""
    width: int = 0
    height: int = 0
    pixels: int = 0
    """Pixels of all frames: the cost of decoding."""


class Stored(NamedTuple):
    """Digests of a stored file and its thumbnail."""

    file: Accepted
    digest: str
    thumbnail: str


class Intake:
    """Validates and stores uploads.

    Args:
        store: file store.
        scanner: virus scanner.
        limit: maximum size of a file in bytes.
    """

    def __init__(self, store: FileStore, scanner: Scanner, *, limit: int) -> None:
        self.store = store
        self.limit = limit
        self._scanner = scanner

    @classmethod
    def from_settings(cls, settings: AppSettings, *, durable: bool = True) -> Self:
        """Create an intake with the directory, scanner and limit of the settings."""
        virus_scanner = scanner(settings.scan_command, settings.scan_socket)
        return cls(
            FileStore(settings.upload_folder, durable=durable), virus_scanner, limit=settings.upload_limit
        )

    def take(self, name: str, content: bytes) -> Stored:
        """Validate and store a file.

        Raises:
            Problem: ``invalid`` if the file is rejected, ``scan-unavailable``, ``storage-full``, ``pictures-busy``
                or ``unavailable`` if too many photographs are being converted or pictures decoded.
        """
        return self.keep(self.checked(name, content))

    def checked(self, name: str, content: bytes) -> Accepted:
        """Validate a file without storing it.

        Raises:
            Problem: as in ``take``.
        """
        if not content:
            raise _refused("file-empty")
        if len(content) > self.limit:
            raise _refused("file-too-large", self.limit // 1_048_576)
        kind = recognise(content)
        if kind is None:
            raise _refused("file-kind")
        original = content
        if kind is HEIC:
            name, kind, content = f"{Path(plain_name(name, kind.endings)).stem}.jpg", JPEG, _as_jpeg(content)
        accepted = Accepted(plain_name(name, kind.endings), kind, content)
        if kind.picture:
            picture = _prepared(content, kind)
            accepted = accepted._replace(
                content=picture.content,
                thumbnail=picture.thumbnail,
                width=picture.width,
                height=picture.height,
                pixels=picture.pixels,
            )
        self._scan(original)
        return accepted

    def checked_all(self, files: Sequence[tuple[str, bytes]]) -> list[Accepted]:
        """Validate all files without storing them.

        Raises:
            Problem: as in ``take``; of several files, the field of an error is ``file: NAME``.
        """
        accepted: list[Accepted] = []
        errors: list[FieldError] = []
        for name, content in files:
            try:
                accepted.append(self.checked(name, content))
            except Problem as problem:
                if problem.code != "invalid":
                    raise
                field = f"file: {name[:100]}" if len(files) > 1 else "file"
                errors += [error._replace(field=field) for error in problem.errors]
        if errors:
            raise Problem("invalid", errors=errors)
        return accepted

    def keep(self, file: Accepted) -> Stored:
        """Store a validated file.

        Raises:
            Problem: ``storage-full``, or ``unavailable`` if the directory is not writable.
        """
        try:
            digest = self.store.keep(file.content)
            small = self.store.keep(file.thumbnail) if file.thumbnail else ""
        except StoreFullError as error:
            _log.error("the folder of uploads is full")
            raise Problem("storage-full") from error
        except OSError as error:
            _log.error("the folder of uploads cannot be written: %s", error.strerror)
            raise Problem("unavailable", headers={"Retry-After": "60"}) from error
        return Stored(file, digest, small)

    def _scan(self, content: bytes) -> None:
        try:
            found = self._scanner.scan(content)
        except ScanFailedError as error:
            _log.error("a file was rejected because it could not be scanned: %s", error)
            raise Problem("scan-unavailable", headers={"Retry-After": "60"}) from error
        if found:
            digest = hashlib.sha256(content).hexdigest()
            _log.warning("a file was refused: %s", found, extra={"sha256": digest})
            raise _refused("file-infected")


def _as_jpeg(content: bytes) -> bytes:
    if find_spec("pi_heif") is None:
        raise _refused("file-heic")
    if not _conversions.acquire(blocking=False):
        raise Problem("pictures-busy", headers={"Retry-After": "10"})
    try:
        with _converting:
            jpeg = bounded_process.run(Path(file_conversion.__file__), "heic", content)
    finally:
        _conversions.release()
    if jpeg is None:
        raise _refused("file-damaged")
    return jpeg


@contextmanager
def _decoder() -> Iterator[None]:
    if not _decoding.acquire(timeout=_PATIENCE):
        raise Problem("unavailable", headers={"Retry-After": "10"})
    try:
        yield
    finally:
        _decoding.release()


def _prepared(content: bytes, kind: Kind) -> pictures.Picture:
    try:
        with _decoder():
            return pictures.prepare(content, kind)
    except pictures.TooManyPixelsError as error:
        raise _refused("file-pixels", pictures.MOST_PIXELS // 1_000_000) from error
    except pictures.DamagedError as error:
        raise _refused("file-damaged") from error


def _refused(code: str, limit: object = "") -> Problem:
    return Problem("invalid", errors=[FieldError("file", code, limit)])
