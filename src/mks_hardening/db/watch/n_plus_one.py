"""N+1: one statement sent again and again from the same place by the same way.

Same fingerprint and same call path. That catches lazy loads, Core and driver SQL, reads and writes alike, and
leaves batches alone, which differ in a list of several values only (``_batches``).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import texts
from mks_hardening.db.watch._window import WatchWindow
from mks_hardening.exceptions import MksHardeningError

if TYPE_CHECKING:
    from mks_hardening.db.watch._batches import BoundValues
    from mks_hardening.db.watch._instrument import Execution
    from mks_hardening.db.watch.queries import WatchedStatement

__all__ = ["NPlusOneError", "NPlusOneFinding", "allow_n_plus_one"]

_allowed: Final[ContextVar[tuple[str, ...]]] = ContextVar("mks_hardening.db.allowed", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class NPlusOneFinding:
    """One statement sent several times from one place.

    Attributes:
        times: how often.
        hint: what usually helps.
    """

    fingerprint: str
    statement: str
    times: int
    caller: str
    hint: str


class NPlusOneError(MksHardeningError):
    """Statements were sent one by one where one would do.

    Attributes:
        findings: which, from where, how often.
    """

    def __init__(self, findings: tuple[NPlusOneFinding, ...]) -> None:
        lines = (f"{one.times} times from {one.caller}: {one.statement} ({one.hint})" for one in findings)
        super().__init__("\n".join(("N+1 statements:", *lines)))
        self.findings = findings


def allow_n_plus_one(*patterns: str) -> WatchWindow[None]:
    """Do not count statements in this ``with`` block or decorated function as N+1.

    Args:
        patterns: shell patterns of ``file:line``, fingerprint or statement; everything when left out.

    Raises:
        ConfigurationError: one that is no text.
    """
    texts(patterns, parameter="patterns", of="patterns")

    @contextmanager
    def allow() -> Generator[None]:
        token = _allowed.set((*_allowed.get(), *(patterns or ("*",))))
        try:
            yield
        finally:
            _allowed.reset(token)

    return WatchWindow(allow)


class StatementGroup:
    """Executions of one statement from one place."""

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
            if len(self._singles) < 2:  # more than one is all that is asked
                self._singles.add(values.single)

    @property
    def count(self) -> int:
        """How many asked for one thing; those with a list do when they differ in something else."""
        return self._alone + (self._batches if len(self._singles) > 1 else 0)

    def finding(self) -> NPlusOneFinding:
        """What is handed out."""
        return NPlusOneFinding(
            fingerprint=self.statement.fingerprint,
            statement=self.statement.statement,
            times=self.count,
            caller=self.statement.caller,
            hint=self.hint,
        )


def names_a_table(text: str) -> bool:
    """Whether there is a table that could have been asked once: ``SELECT 1`` has none."""
    return not text.startswith("select") or " from " in text


def is_allowed(statement: WatchedStatement) -> bool:
    """Whether ``allow_n_plus_one`` lets the statement pass."""
    names = (statement.caller, statement.fingerprint, statement.statement)
    return any(fnmatchcase(name, pattern) for pattern in _allowed.get() for name in names)


def hint_for(execution: Execution) -> str:
    """What usually helps against a statement like this."""
    # The ORM says which object a lazy load came from; relationship loads by selectinload do not carry it.
    options = execution.context.execution_options.get("_sa_orm_load_options")
    owner = getattr(options, "_lazy_loaded_from", None)
    if owner is not None:
        return f"a lazy load from {owner.class_.__name__}: add selectinload() or joinedload() to the query before"
    if execution.statement.lstrip()[:6].lower() == "select":
        return "fetch all rows with one statement: a join, or IN with a list"
    return "send all rows with one statement: executemany, or a bulk insert or update"
