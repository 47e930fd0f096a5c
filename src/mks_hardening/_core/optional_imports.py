"""Convert the import error of a package that is not installed to ``MissingDependencyError``.

A module that uses a third-party package imports it inside a function, under
``with optional("redis", extra="cache"):``. Only the absence of that very package becomes a
``MissingDependencyError``; an installed package that fails to import shows its own error.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import cast

from mks_hardening.exceptions import MissingDependencyError

__all__ = ["optional"]


class optional:  # noqa: N801 - reads as a statement: with optional("redis", extra="cache")
    """Context manager that raises an error with package, extra and install command if the package is absent.

    Raises:
        MissingDependencyError: the package itself is not installed.
    """

    __slots__ = ("_extra", "_package")

    def __init__(self, package: str, *, extra: str) -> None:
        self._package = package
        self._extra = extra

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError) and self._is_absent(error.name or ""):
            raise MissingDependencyError(self._package, self._extra) from error

    def _is_absent(self, module: str) -> bool:
        """Whether the package is missing; ``None`` in ``sys.modules`` also blocks it, including its submodules."""
        loaded = cast("dict[str, object]", sys.modules)
        blocked = loaded.get(self._package, self) is None
        return module == self._package or (blocked and module.startswith(f"{self._package}."))
