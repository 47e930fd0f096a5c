"""Small time series plots as SVG, without scripts and style attributes, with a text for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from math import ceil, log10
from typing import NamedTuple

_WIDTH, _HEIGHT = 320, 96
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 4, 8, 16


class Plot(NamedTuple):
    """A plot of values in equal time steps; ``None`` where there is no value.

    Attributes:
        name: unique on the page; ASCII letters.
        title: title of the plot.
        description: description in words, with the newest and the largest value.
        values: values, oldest first.
        begin: label below the left end.
        end: label below the right end.
        most: minimum for the top of the scale.
        bars: whether to draw bars, for sums; otherwise a line, for measurements.
    """

    name: str
    title: str
    description: str
    values: Sequence[float | None]
    begin: str
    end: str
    most: float = 1
    bars: bool = False


def render_svg(plot: Plot) -> str:
    """Return the SVG."""
    top = _round_up(max([plot.most, *(value for value in plot.values if value is not None)]))
    marks = _bars(plot.values, top) if plot.bars else _lines(plot.values, top)
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{plot.name}-title {plot.name}-description">'
        f'<title id="{plot.name}-title">{escape(plot.title)}</title>'
        f'<desc id="{plot.name}-description">{escape(plot.description)}</desc>'
        f'<path class="axis" d="M{_LEFT} {_TOP}H{right}M{_LEFT} {base}H{right}"/>'
        f'<text class="scale" x="{_LEFT - 4}" y="{_TOP + 4}" text-anchor="end">{top:g}</text>'
        f'<text class="scale" x="{_LEFT - 4}" y="{base + 3}" text-anchor="end">0</text>'
        f'<text class="scale" x="{_LEFT}" y="{_HEIGHT - 3}">{escape(plot.begin)}</text>'
        f'<text class="scale" x="{right}" y="{_HEIGHT - 3}" text-anchor="end">{escape(plot.end)}</text>'
        f"{marks}</svg>"
    )


def _round_up(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    size = 10 ** (ceil(log10(value)) - 1) if value > 0 else 1
    return next(size * step for step in (1, 2, 5, 10) if size * step >= value)


def _bars(values: Sequence[float | None], top: float) -> str:
    width, base = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values)), _HEIGHT - _BOTTOM
    drawn = (
        f"M{_LEFT + width * place:.1f} {base}v-{_tall(value, top):.1f}h{width * 0.8:.1f}V{base}z"
        for place, value in enumerate(values)
        if value
    )
    return f'<path class="bars" d="{"".join(drawn)}"/>'


def _lines(values: Sequence[float | None], top: float) -> str:
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values) - 1)
    points = [
        None if value is None else f"{_LEFT + step * place:.1f} {_HEIGHT - _BOTTOM - _tall(value, top):.1f}"
        for place, value in enumerate(values)
    ]
    runs = [list(run) for there, run in groupby(points, key=lambda point: point is not None) if there]
    # A line of one point appears as a dot, because of its round cap.
    drawn = "".join(f"M{run[0]}" + "".join(f"L{point}" for point in run[1:] or run) for run in runs)
    return f'<path class="line" d="{drawn}"/>'


def _tall(value: float, top: float) -> float:
    return (_HEIGHT - _TOP - _BOTTOM) * min(value, top) / top
