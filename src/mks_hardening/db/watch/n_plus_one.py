"""Detection of N+1 patterns: one statement sent repeatedly from the same call path.

Executions are grouped by fingerprint and call path. This finds lazy loads, Core and driver SQL, reads and writes,
but not batches, which differ only in a list of several values (``_batches``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from mks_hardening._core.checks import strings
from mks_hardening.db.watch._window import WatchWindow
from mks_hardening.exceptions import ConfigurationError, MksHardeningError

if TYPE_CHECKING:
    from mks_hardening.db.watch._batches import BoundValues
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
    return WatchWindow(lambda: AllowedStatements(*(patterns or ("*",))))


class AllowedStatements:
    """Block whose statements that match one of the patterns are excluded from N+1 detection."""

    __slots__ = ("_patterns", "_token")
    _token: Token[tuple[str, ...]]

    def __init__(self, *patterns: str) -> None:
        self._patterns = patterns

    def __enter__(self) -> None:
        self._token = _allowed.set((*_allowed.get(), *self._patterns))

    def __exit__(self, *_: object) -> None:
        _allowed.reset(self._token)


def accepted_patterns(baseline: Mapping[str, str] | str | Path | None) -> Mapping[str, str]:
    """Return the patterns of accepted findings with the reason of each.

    Args:
        baseline: the patterns themselves, or the path of a TOML file with a table ``accepted`` of them.

    Raises:
        ConfigurationError: the file cannot be read, or a pattern has no reason.
    """
    if baseline is None:
        return {}
    given: object = baseline
    if isinstance(baseline, (str, Path)):
        try:
            content = tomllib.loads(Path(baseline).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"baseline {baseline} cannot be read ({error})", parameter="baseline"
            ) from None
        given = content.get("accepted")
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            'baseline must be a mapping, or a TOML file with [accepted] and lines of "pattern" = "reason"',
            parameter="baseline",
        )
    accepted: dict[str, str] = {}
    for pattern, reason in cast("Mapping[object, object]", given).items():
        if not (isinstance(pattern, str) and isinstance(reason, str) and reason.strip()):
            raise ConfigurationError(
                f"baseline: the pattern {pattern!r} must have a reason, a text that is not empty",
                parameter="baseline",
            )
        accepted[pattern] = reason
    return accepted


class StatementGroup:
    """Executions of one statement from one call path."""

    __slots__ = ("_alone", "_batches", "_fixed", "_most_rows", "_pages", "_singles", "hint", "statement")

    def __init__(self, statement: WatchedStatement, hint: str) -> None:
        self.statement: WatchedStatement = statement
        self.hint: str = hint
        self._alone = self._batches = self._pages = self._most_rows = 0
        self._singles: set[int] = set()
        self._fixed: set[int] = set()

    def add(self, values: BoundValues, rows: int) -> None:
        """Count one execution, which fetched or changed a number of rows."""
        if values.has_list:
            self._batches += 1
            _add_first_two(self._singles, values.single)
        elif values.may_be_page:
            self._pages += 1
            self._most_rows = max(self._most_rows, rows)
            _add_first_two(self._fixed, values.fixed)
        else:
            self._alone += 1

    @property
    def count(self) -> int:
        """Executions that count as N+1.

        Those with a list count only if they also differ in other values; pages and chunks only if they differ in
        more than the bounds of their range, or never have more than one row.
        """
        batches = self._batches if len(self._singles) > 1 else 0
        return self._alone + batches + (self._pages if len(self._fixed) > 1 or self._most_rows < 2 else 0)

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


def allowed_patterns() -> tuple[str, ...]:
    """Patterns of ``allow_n_plus_one`` that apply to the current code."""
    return _allowed.get()


def is_allowed(statement: WatchedStatement | NPlusOneFinding, patterns: Iterable[str]) -> bool:
    """Whether patterns of ``allow_n_plus_one`` or of a baseline exclude the statement."""
    names = (statement.caller, statement.fingerprint, statement.statement)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def hint_for(statement: str, loads_from: type | None) -> str:
    """Usual remedy for a repeated statement of this kind.

    Args:
        statement: normalized statement.
        loads_from: class from which the ORM loaded lazily.
    """
    if loads_from is not None:
        return (
            f"a lazy load from {loads_from.__name__}: add selectinload() or joinedload() to the query before"
        )
    if statement.startswith("select"):
        return "fetch all rows with one statement: a join, or IN with a list"
    return "send all rows with one statement: executemany, or a bulk insert or update"


def _add_first_two(values: set[int], value: int) -> None:
    if len(values) < 2:  # two are enough to know that they differ
        values.add(value)
