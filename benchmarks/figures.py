"""Keep the figures of a benchmark for the published tables, when ``tools/bench.py`` runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["keep"]


def keep(title: str, figures: Mapping[str, float]) -> None:
    """Keep one comparison: the figure of each contender, all in the same unit."""
    path = os.environ.get("MKS_BENCH_FIGURES")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([title, dict(figures)], ensure_ascii=False) + "\n")
