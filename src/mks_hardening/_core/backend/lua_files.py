"""Lua scripts stored as files next to the module that runs them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["lua_source"]


@cache
def lua_source(package: str, *names: str) -> str:
    """Return the text of one or more files of a package, concatenated; read on first use.

    Args:
        package: dotted name of the package that contains them.
        names: paths below it; the last file is the script, those before it define functions that it uses.
    """
    folder = files(package)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
