"""Picture processing: complete decoding, orientation, size limits, removal of metadata, thumbnails."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final, NamedTuple

from PIL import Image, ImageOps

from knowledge_system.domain.files.file_types import Kind
from knowledge_system.domain.files.picture_metadata import DamagedError, strip_metadata

__all__ = ["MOST_PIXELS", "DamagedError", "Picture", "TooManyPixelsError", "prepare"]

MOST_PIXELS: Final = 50_000_000
"""Maximum pixels of all frames, at four bytes of memory each. Phone cameras produce up to 50 million."""
_MOST_FRAMES: Final = 200
_THUMBNAIL: Final = (480, 480)
_ORIENTATION: Final = 0x0112


class TooManyPixelsError(ValueError):
    """Decoding the picture would need too much memory, whatever the size of its file."""


class Picture(NamedTuple):
    """A picture to store, with its thumbnail (WebP); ``pixels`` is the sum over all frames."""

    content: bytes
    width: int
    height: int
    thumbnail: bytes
    pixels: int


def prepare(content: bytes, kind: Kind) -> Picture:
    """Decode the picture once, apply its orientation, and remove its metadata.

    Raises:
        TooManyPixelsError: more than ``MOST_PIXELS`` (nothing is decoded if the header says so), or too many
            frames.
        DamagedError: the picture cannot be decoded completely.
    """
    plain = strip_metadata(content, kind.name)
    try:
        with Image.open(BytesIO(content), formats=[kind.name]) as image:
            _check_size(image)
            orientation = image.getexif().get(_ORIENTATION, 1)
            frames = _decode(image)
            turned = ImageOps.exif_transpose(image)
            if orientation in range(2, 9) and frames == 1:  # the orientation tag is removed
                plain = strip_metadata(_written(turned, kind), kind.name)
            pixels = frames * turned.width * turned.height
            return Picture(plain, turned.width, turned.height, _small(turned), pixels)
    except TooManyPixelsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError from error
    except Exception as error:  # decoders raise almost any exception on malicious files
        raise DamagedError(kind.name) from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise TooManyPixelsError


def _decode(image: Image.Image) -> int:
    """Decode and count all frames; ``n_frames`` would read them all before the limit is checked."""
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
        if image.format in {"JPEG", "MPO"}:  # ignore further pictures after the first
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
