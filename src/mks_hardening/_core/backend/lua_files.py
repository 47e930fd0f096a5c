"""Lua scripts kept in files beside the module that runs them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["lua_source"]


@cache
def lua_source(package: str, *names: str) -> str:
    """The text of one or more files of a package, one after the other; read when first asked for.

    Args:
        package: dotted name of the package that holds them.
        names: paths below it; the last file is the script, those before it define what it uses.
    """
    folder = files(package)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
