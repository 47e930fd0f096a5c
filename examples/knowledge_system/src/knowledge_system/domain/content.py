"""Files of the package below ``content``: texts, labels and demonstration data."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def read_text(*path: str) -> str:
    """Return the text of a file."""
    return files("knowledge_system").joinpath("content", *path).read_text(encoding="utf-8")


def read_toml(name: str) -> dict[str, Any]:
    """Return the content of a TOML file."""
    return tomllib.loads(read_text(name))
