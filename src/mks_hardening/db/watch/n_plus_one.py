"""Detection of N+1 patterns: one statement sent repeatedly from the same call path.

Executions are grouped by fingerprint and call path. This finds lazy loads, Core and driver SQL, reads and writes,
but not batches, which differ only in a list of several values (``_batches``).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import strings
from mks_hardening.db.watch._sqlalchemy_internals import lazy_load_source
from mks_hardening.db.watch._window import WatchWindow
from mks_hardening.exceptions import MksHardeningError

if TYPE_CHECKING:
    from mks_hardening.db.watch._batches import BoundValues
    from mks_hardening.db.watch._execution import Execution
    from mks_hardening.db.watch.queries import WatchedStatement

__all__ = ["NPlusOneError", "NPlusOneFinding", "allow_n_plus_one"]

_allowed: Final[ContextVar[tuple[str, ...]]] = ContextVar("mks_hardening.db.allowed", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class NPlusOneFinding:
    """One statement that was sent several times from one call site.

    Attributes:
        fingerprint: fingerprint of the statement.
        statement: the statement without its values.
        times: number of executions.
        caller: ``file:line`` of the application.
        hint: usual remedy.
    """

    fingerprint: str
    statement: str
    times: int
    caller: str
    hint: str


class NPlusOneError(MksHardeningError):
    """Statements were sent one by one where a single statement would do.

    Attributes:
        findings: statements with their call site and number of executions.
    """

    def __init__(self, findings: tuple[NPlusOneFinding, ...]) -> None:
        lines = (f"{one.times} times from {one.caller}: {one.statement} ({one.hint})" for one in findings)
        super().__init__("\n".join(("N+1 statements:", *lines)))
        self.findings = findings


def allow_n_plus_one(*patterns: str) -> WatchWindow[None]:
    """Exclude statements in a ``with`` block or decorated function from N+1 detection.

    Args:
        patterns: shell patterns of ``file:line``, fingerprint or statement; without patterns, all statements.

    Raises:
        ConfigurationError: a pattern is not a string.
    """
    strings(patterns, parameter="patterns", of="patterns")

    @contextmanager
    def allow() -> Generator[None]:
        token = _allowed.set((*_allowed.get(), *(patterns or ("*",))))
        try:
            yield
        finally:
            _allowed.reset(token)

    return WatchWindow(allow)


class StatementGroup:
    """Executions of one statement from one call path."""

    __slots__ = ("_alone", "_batches", "_singles", "hint", "statement")

    def __init__(self, statement: WatchedStatement, hint: str) -> None:
        self.statement: WatchedStatement = statement
        self.hint: str = hint
        self._alone = self._batches = 0
        self._singles: set[int] = set()

    def add(self, values: BoundValues) -> None:
        """Count one execution."""
        if not values.has_list:
            self._alone += 1
        else:
            self._batches += 1
            if len(self._singles) < 2:  # two are enough to know that they differ
                self._singles.add(values.single)

    @property
    def count(self) -> int:
        """Executions that count as N+1; those with a list count only if they also differ in other values."""
        return self._alone + (self._batches if len(self._singles) > 1 else 0)

    def finding(self) -> NPlusOneFinding:
        """Convert the group to a finding."""
        return NPlusOneFinding(
            fingerprint=self.statement.fingerprint,
            statement=self.statement.statement,
            times=self.count,
            caller=self.statement.caller,
            hint=self.hint,
        )


def names_a_table(text: str) -> bool:
    """Whether the statement reads or writes a table; ``SELECT 1`` does not."""
    return not text.startswith("select") or " from " in text


def is_allowed(statement: WatchedStatement) -> bool:
    """Whether ``allow_n_plus_one`` excludes the statement."""
    names = (statement.caller, statement.fingerprint, statement.statement)
    return any(fnmatchcase(name, pattern) for pattern in _allowed.get() for name in names)


def hint_for(execution: Execution) -> str:
    """Usual remedy for a repeated statement of this kind."""
    source = lazy_load_source(execution.context)
    if source is not None:
        return f"a lazy load from {source.__name__}: add selectinload() or joinedload() to the query before"
    if execution.statement.lstrip()[:6].lower() == "select":
        return "fetch all rows with one statement: a join, or IN with a list"
    return "send all rows with one statement: executemany, or a bulk insert or update"
