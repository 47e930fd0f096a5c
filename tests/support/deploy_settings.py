"""Settings of the reference application, with the changes of a test."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KNOWLEDGE = Path(__file__).parents[2] / "examples" / "knowledge_system" / "deploy.toml"


def deployed(*texts: str, without: tuple[str, ...] = (), base: str = "") -> str:
    """Return the ``deploy.toml`` of the reference application; each text adds or replaces options.

    Args:
        texts: further TOML, later ones win.
        without: tables that are left out before.
        base: settings of another application.
    """
    whole = tomllib.loads(base or KNOWLEDGE.read_text(encoding="utf-8"))
    for table in without:
        del whole[table]
    for text in texts:
        for name, table in tomllib.loads(text).items():
            whole[name] = {**whole.get(name, {}), **table} if isinstance(table, Mapping) else table
    return as_toml(whole)


def as_toml(tables: Mapping[str, Any]) -> str:
    """Tables of values as text."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
