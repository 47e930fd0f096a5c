"""Small pictures for the articles of a demonstration: plots and sections, always the same from the same values."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_SIZE: Final = (720, 405)
_INK, _GRID, _BLUE, _RED = "#26323a", "#d8dee2", "#1f6f8b", "#b3392f"
_SOILS: Final = ("#c9a77c", "#b58d5e", "#9c8f7a", "#8a7b66")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    place = files("knowledge_system").joinpath("reports", "font", "BIZUDPGothic-Regular.ttf")
    return ImageFont.truetype(BytesIO(place.read_bytes()), size)


def _sheet(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", _SIZE, "#fbfaf7")
    draw = ImageDraw.Draw(image)
    draw.text((20, 12), title, _INK, _font(20))
    return image, draw


def _written(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", quality=68, method=2)
    return file.getvalue()


def plot(title: str, values: Sequence[float], unit: str) -> bytes:
    """Return a run chart of measured values with their mean and three standard deviations (WebP)."""
    image, draw = _sheet(title)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5 or 1.0
    left, right, top, bottom = 80, 700, 60, 370

    def y(value: float) -> float:
        return (top + bottom) / 2 - (value - mean) / (4 * spread) * (bottom - top) / 2

    for level, colour in ((mean - 3 * spread, _RED), (mean, _INK), (mean + 3 * spread, _RED)):
        draw.line((left, y(level), right, y(level)), colour, 1)
        draw.text((8, y(level) - 9), f"{level:.4g}{unit[:3]}", colour, _font(15))
    points = [
        (left + 20 + number * (right - left - 40) / (len(values) - 1), y(value))
        for number, value in enumerate(values)
    ]
    draw.line(points, _BLUE, 3)
    for across, down in points:
        draw.ellipse((across - 5, down - 5, across + 5, down + 5), _BLUE)
    return _written(image)


def bars(title: str, rows: Sequence[tuple[str, float, float]]) -> bytes:
    """Return bars of values before and after a change (WebP)."""
    image, draw = _sheet(title)
    for number, (label, before, after) in enumerate(rows):
        down = 70 + number * 105
        most = max(before, after)
        draw.text((20, down + 22), label, _INK, _font(18))
        for offset, value, colour in ((0, before, "#9aa7ae"), (36, after, _BLUE)):
            draw.rectangle((200, down + offset, 200 + value / most * 420, down + offset + 28), colour)
            draw.text((208 + value / most * 420, down + offset + 4), f"{value:g}", _INK, _font(16))
    return _written(image)


def _ground(draw: ImageDraw.ImageDraw, chance: random.Random) -> None:
    left, right, surface = 0, _SIZE[0], chance.randrange(130, 190)
    down = surface
    for colour in chance.sample(_SOILS, 4):
        tilt = chance.randrange(-25, 25)
        draw.polygon([(left, down), (right, down + tilt), (right, 405), (left, 405)], colour)
        down += chance.randrange(45, 80)
    if chance.random() < 0.5:
        for across in range(150, 600, 110):
            draw.rectangle((across, surface - 8, across + 26, 370), "#c9ced1", _INK, 2)
    else:
        draw.polygon([(120, surface + 4), (230, 70), (520, 70), (640, surface + 4)], "#d9bd90", _INK, 2)
        for level in range(90, surface, 22):
            draw.line((235 - (level - 70), level, 515 + (level - 70), level), "#a88a5c", 1)


def _concrete(draw: ImageDraw.ImageDraw, chance: random.Random) -> None:
    wide, high = chance.randrange(280, 460), chance.randrange(200, 290)
    left, top = (_SIZE[0] - wide) // 2, 75
    draw.rectangle((left, top, left + wide, top + high), "#d3d6d6", _INK, 3)
    for _ in range(140):
        across, down = left + chance.randrange(8, wide - 8), top + chance.randrange(8, high - 8)
        draw.ellipse((across, down, across + 4, down + 4), "#b2b7b8")
    step = chance.choice((36, 44, 52))
    draw.rectangle((left + 22, top + 22, left + wide - 22, top + high - 22), outline=_RED, width=3)
    bars_across = (wide - 68) // step
    for number in range(bars_across + 1):
        across = left + 34 + number * (wide - 68) // bars_across
        for down in (top + 30, top + high - 30):
            draw.ellipse((across - 7, down - 7, across + 7, down + 7), _RED)
    draw.line((left, top + high + 22, left + wide, top + high + 22), _INK, 1)
    draw.text((left + wide / 2 - 30, top + high + 24), f"{wide * 5} mm", _INK, _font(16))


def _frame(draw: ImageDraw.ImageDraw, chance: random.Random) -> None:
    bays, levels = chance.randrange(4, 7), chance.randrange(2, 4)
    wide, high = 560 // bays, 270 // levels
    for bay in range(bays + 1):
        draw.line((80 + bay * wide, 80, 80 + bay * wide, 80 + levels * high), _INK, 4)
    for level in range(levels + 1):
        draw.line((80, 80 + level * high, 80 + bays * wide, 80 + level * high), "#6b7a83", 5)
    for bay in range(bays):
        level = (bay + chance.randrange(2)) % levels
        corner = (80 + bay * wide, 80 + level * high)
        draw.line((*corner, corner[0] + wide, corner[1] + high), _BLUE, 2)
    draw.rectangle((40, 80 + levels * high, 690, 96 + levels * high), "#9c8f7a")


def _site(draw: ImageDraw.ImageDraw, chance: random.Random) -> None:
    for number in range(1, 8):
        draw.line((40, 60 + number * 42, 690, 60 + number * 42), _GRID, 1)
        start, length = chance.randrange(50, 380), chance.randrange(70, 270)
        colour = chance.choice((_BLUE, "#6b9a53", "#c28a2c", _RED))
        draw.rectangle(
            (start, 70 + number * 42 - 32, min(start + length, 690), 70 + number * 42 - 10), colour
        )
    draw.line((chance.randrange(250, 420), 60, chance.randrange(250, 420), 380), _RED, 2)


SECTIONS: Final[dict[str, Callable[[ImageDraw.ImageDraw, random.Random], None]]] = {
    **dict.fromkeys(("土工", "基礎", "舗装", "環境", "測量"), _ground),
    **dict.fromkeys(("コンクリート", "鉄筋", "型枠", "維持管理"), _concrete),
    **dict.fromkeys(("足場", "鋼構造", "安全"), _frame),
    **dict.fromkeys(("工程", "積算", "品質"), _site),
}
"""What is drawn for each category."""


def section(title: str, category: str, chance: random.Random) -> bytes:
    """Return a sketch of what a category is about (WebP)."""
    image, draw = _sheet("")
    SECTIONS[category](draw, chance)
    draw.rectangle((0, 0, _SIZE[0], 46), "#fbfaf7")
    draw.text((20, 12), title, _INK, _font(20))
    return _written(image)
