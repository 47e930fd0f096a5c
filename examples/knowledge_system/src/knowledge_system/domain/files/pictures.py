"""Pictures that are whole, upright, of a bearable size, and say nothing beside their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final, NamedTuple

from PIL import Image, ImageOps

from knowledge_system.domain.files.file_types import Kind
from knowledge_system.domain.files.metadata import DamagedError, stripped

__all__ = ["MOST_PIXELS", "DamagedError", "Picture", "TooManyPixelsError", "prepare"]

MOST_PIXELS: Final = 50_000_000
"""Of all frames together; decoded, each is four bytes of memory. Cameras of telephones make up to 50 million."""
_MOST_FRAMES: Final = 200
_THUMBNAIL: Final = (480, 480)
_ORIENTATION: Final = 0x0112


class TooManyPixelsError(ValueError):
    """Decoding it would take more memory than it is worth, whatever its file is in size."""


class Picture(NamedTuple):
    """A picture to keep, and a small one of it (WebP); ``pixels`` are those of all frames."""

    content: bytes
    width: int
    height: int
    thumbnail: bytes
    pixels: int


def prepare(content: bytes, kind: Kind) -> Picture:
    """Decode the picture once, turn it as its camera was held, take out what is not pixels.

    Raises:
        TooManyPixelsError: its head promises more than ``MOST_PIXELS``; nothing was decoded.
        DamagedError: it cannot be decoded to its end.
    """
    plain = stripped(content, kind.name)
    try:
        with Image.open(BytesIO(content), formats=[kind.name]) as image:
            _check_size(image)
            orientation = image.getexif().get(_ORIENTATION, 1)
            frames = _decode(image)
            turned = ImageOps.exif_transpose(image)
            if orientation in range(2, 9) and frames == 1:  # the field that turned it is gone
                plain = stripped(_written(turned, kind), kind.name)
            pixels = frames * turned.width * turned.height
            return Picture(plain, turned.width, turned.height, _small(turned), pixels)
    except TooManyPixelsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError from error
    except Exception as error:  # decoders raise nearly anything over a hostile file
        raise DamagedError(kind.name) from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise TooManyPixelsError


def _decode(image: Image.Image) -> int:
    """Every frame; counted on the way, for asking how many there are reads them all."""
    frame = 0
    while frame < _MOST_FRAMES:
        try:
            image.seek(frame)
        except EOFError:
            break
        image.load()
        frame += 1
        if frame * image.width * image.height > MOST_PIXELS:
            raise TooManyPixelsError
        if image.format in {"JPEG", "MPO"}:  # further pictures behind the first are left out
            break
    else:
        raise TooManyPixelsError
    image.seek(0)
    image.load()
    return frame


_QUALITY: Final[Mapping[str, dict[str, Any]]] = {
    "JPEG": {"quality": 92, "subsampling": "4:2:0"},
    "WEBP": {"quality": 92},
}


def _written(image: Image.Image, kind: Kind) -> bytes:
    options = _QUALITY.get(kind.name, {})
    profile = image.info.get("icc_profile")
    plain = image.copy()
    plain.info = {key: image.info[key] for key in ("transparency",) if key in image.info}
    file = BytesIO()
    plain.save(file, kind.name, icc_profile=profile, **options)
    return file.getvalue()


def _small(image: Image.Image) -> bytes:
    with_alpha = "A" in image.getbands() or "transparency" in image.info
    small = image.convert("RGBA" if with_alpha else "RGB")
    small.thumbnail(_THUMBNAIL)
    small.info = {}
    file = BytesIO()
    small.save(file, "WEBP", quality=80)
    return file.getvalue()
