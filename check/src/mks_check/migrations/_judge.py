"""Decisions of the linter: which rules an operation violates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from mks_check.migrations._column_types import default_volatility, is_serial, type_change
from mks_check.migrations._known_schema import KnownSchema, MigrationState
from mks_check.migrations._schema_operation import ColumnDefinition, OperationKind, SchemaOperation
from mks_check.migrations._sql_script import SqlStatement
from mks_check.migrations._statement_reader import read_statement
from mks_check.migrations._table_locks import blocks_writes, locks_of
from mks_check.migrations._token_cursor import UnreadableStatementError
from mks_check.migrations.migration_rules import MIGRATION_RULES
from mks_hardening._core.sarif import SarifLevel
from mks_hardening.db.migrations._recording_connection import RESUMABLE

__all__ = ["MigrationJudge", "RuleViolation"]

_INTEGERS: Final = frozenset(
    {"integer", "int", "int4", "smallint", "int2", "serial", "serial4", "smallserial"}
)
_NOT_TRANSACTIONAL: Final = frozenset({"create_index", "drop_index", "reindex", "detach_partition"})
_DATA: Final = frozenset({"insert", "rewrite_rows"})
_IN_PASSING: Final = frozenset({"set_timeout", "begin", "commit", "rollback", "harmless", "query"})


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A rule that an operation violates.

    Attributes:
        rule_id: the rule.
        subject: table, or ``table.column``, or another object.
        detail: what exactly; empty if the rule says it all.
        level: level, if it is not that of the rule.
    """

    rule_id: str
    subject: str
    detail: str = ""
    level: SarifLevel | None = None


class MigrationJudge:
    """Judges the statements of one migration, in order.

    Attributes:
        remedied: violations that a later statement has made harmless.

    Args:
        schema: what is known of the schema; grows.
        version: major version of PostgreSQL.
        in_transaction: whether the migration runs in a transaction.
        has_lock_timeout: whether whoever runs it sets ``lock_timeout``.
    """

    def __init__(
        self, schema: KnownSchema, *, version: int, in_transaction: bool, has_lock_timeout: bool
    ) -> None:
        self._schema = schema
        self._version = version
        self._state = MigrationState(in_transaction=in_transaction, timeout=has_lock_timeout)
        self._is_resumable = False
        self.remedied: set[RuleViolation] = set()
        self._rules: dict[OperationKind, Callable[[SchemaOperation], Iterator[RuleViolation]]] = {
            "add_column": self._add_column,
            "add_constraint": self._add_constraint,
            "add_enum_value": self._add_enum_value,
            "alter_constraint": self._alter_constraint,
            "attach_partition": self._attach_partition,
            "cluster": self._rewrite_table,
            "create_index": self._create_index,
            "create_table": self._create_table,
            "create_trigger": self._create_trigger,
            "detach_partition": self._detach_partition,
            "drop_column": self._drop_column,
            "drop_constraint": self._drop_constraint,
            "drop_default": self._drop_default,
            "drop_index": self._drop_index,
            "drop_table": self._drop_table,
            "dynamic": self._dynamic,
            "insert": self._insert,
            "lock_table": self._lock_table,
            "query": self._query,
            "refresh": self._refresh,
            "reindex": self._reindex,
            "rename_column": self._rename_column,
            "rename_enum_value": self._rename_enum_value,
            "rename_schema": self._rename_schema,
            "rename_table": self._rename_table,
            "rewrite_rows": self._rewrite_rows,
            "rewrite_table": self._rewrite_table,
            "set_not_null": self._set_not_null,
            "set_type": self._set_type,
            "truncate": self._truncate,
            "vacuum": self._vacuum,
            "validate_constraint": self._validate_constraint,
        }

    def judge(self, statement: SqlStatement) -> list[RuleViolation]:
        """Return the violations of a statement, and apply it to what is known."""
        found = list(self._enum_values_used(statement))
        try:
            operations = read_statement(statement)
        except UnreadableStatementError as error:
            return [*found, RuleViolation("MG801", "", f"it stops at {str(error)[:60]!r}")]
        self._is_resumable = RESUMABLE in statement.text
        for operation in operations:
            judged = self._judge(operation)
            found += map(_doubted, judged) if operation.table in self._state.perhaps_new else judged
        if not self._state.in_transaction:
            self._state.end_statement()
        return found

    def _judge(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        state = self._state
        match operation.kind:
            case "begin":
                state.begin()
            case "commit" | "rollback":
                state.end()
            case "set_timeout":
                state.set_timeout(operation)
            case _ if self._exists(operation):
                return
            case _:
                yield from self._judge_locks(operation)
                if rule := self._rules.get(operation.kind):
                    yield from rule(operation)
                self._remember(operation)
        self._schema.learn(operation)

    # --- rules about transactions and locks

    def _judge_locks(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        state = self._state
        locked = self._locked_tables(operation)
        concurrently = "concurrently" in operation.flags
        waits = bool(locked) or (operation.kind == "drop_index" and not self._is_new_index(operation))
        if waits and not concurrently and not state.has_lock_timeout:
            yield from self._once("MG101", (*locked, operation.name)[0])
        if concurrently and operation.kind in _NOT_TRANSACTIONAL:
            yield from self._judge_concurrent(operation)
        elif state.has_concurrent_step and waits:
            yield RuleViolation("MG104", operation.table, "it is in one migration with a concurrent step")
        if locked and state.changed_rows:
            yield from self._once("MG106", locked[0])
        if not state.in_transaction:
            return
        earlier = [table for table in state.locked if table not in locked]
        if locked and earlier:
            yield from self._once("MG103", locked[0], f"{earlier[0]} is locked already")
        if state.locked and self._is_slow(operation):
            yield RuleViolation("MG102", operation.table, f"{state.locked[0]} is locked already")
        state.locked += [table for table in locked if table not in state.locked]

    def _locked_tables(self, operation: SchemaOperation) -> list[str]:
        """Return the tables in use whose writes wait for the operation, as far as they are known."""
        if operation.kind == "drop_index":
            table = self._schema.indexes.get(operation.name, "")
            return [table] if table and not self._is_new_index(operation) else []
        locks = locks_of(operation)
        return [
            table
            for table, mode in locks.items()
            if blocks_writes(mode) and table not in self._state.new_tables
        ]

    def _once(self, rule_id: str, subject: str, detail: str = "") -> Iterator[RuleViolation]:
        """Report a rule about the whole migration once, and of each table that perhaps is new."""
        reported = f"{rule_id} {subject}" if subject in self._state.perhaps_new else rule_id
        if reported not in self._state.reported:
            self._state.reported.add(reported)
            yield RuleViolation(rule_id, subject, detail)

    def _judge_concurrent(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        state = self._state
        if state.in_transaction:
            yield RuleViolation("MG104", operation.table or operation.name)
        elif state.changed_schema and not self._is_resumable:
            yield RuleViolation(
                "MG104",
                operation.table or operation.name,
                "other operations of the migration are committed before",
            )
        state.has_concurrent_step |= not self._is_resumable

    def _is_slow(self, operation: SchemaOperation) -> bool:
        """Whether an operation reads or writes many rows of a table in use."""
        state = self._state
        if operation.table in state.new_tables | state.perhaps_new:
            return False
        match operation.kind:
            case "rewrite_rows" | "refresh" | "create_index":
                return True
            case "insert":
                return "query" in operation.flags
            case "validate_constraint":
                return (operation.table, operation.name) not in state.not_valid
            case _:
                return False

    def _enum_values_used(self, statement: SqlStatement) -> Iterator[RuleViolation]:
        if self._state.enum_values:
            for token in statement.tokens:
                if token.text in self._state.enum_values:
                    yield RuleViolation("MG504", token.text, "it is used in the transaction that adds it")
                    return

    def _remember(self, operation: SchemaOperation) -> None:
        state = self._state
        match operation.kind:
            case "create_table":
                # Temporary tables are of this session alone.
                perhaps = "if_not_exists" in operation.flags and "temporary" not in operation.flags
                (state.perhaps_new if perhaps else state.new_tables).add(operation.table)
            case "rename_table" if operation.table in state.new_tables:
                state.new_tables.add(operation.other)
            case "rename_table":
                state.renamed.add(operation.table)
            case "create_view" | "replace_view":
                self._remedy(operation.name or operation.table)
            case "add_column" if operation.column is not None:
                column = operation.column
                state.new_columns[operation.table, operation.name] = column.not_null and bool(column.default)
            case "create_index":
                state.new_indexes.add(operation.name)
            case "add_constraint" if "not_valid" in operation.flags:
                state.not_valid.add((operation.table, operation.name))
            case "add_enum_value":
                state.enum_values.add(operation.other)
            case _:
                pass
        if operation.table in state.new_tables or "concurrently" in operation.flags or self._is_resumable:
            return
        if operation.kind in _DATA:
            state.changed_rows |= operation.kind == "rewrite_rows" or "query" in operation.flags
        else:
            state.changed_schema |= bool(operation.table) and operation.kind not in _IN_PASSING

    def _remedy(self, view: str) -> None:
        """Accept that a table was renamed for which there is a view with its old name."""
        if view in self._state.renamed:
            self.remedied.add(RuleViolation("MG213", view))

    def _exists(self, operation: SchemaOperation) -> bool:
        """Whether IF NOT EXISTS makes an operation do nothing, because an earlier migration did it."""
        if "if_not_exists" not in operation.flags:
            return False
        known = self._schema
        match operation.kind:
            case "create_table":
                return operation.table in known.columns
            case "create_index":
                return "concurrently" not in operation.flags and operation.name in known.indexes
            case _:
                return False

    def _is_new(self, operation: SchemaOperation) -> bool:
        return operation.table in self._state.new_tables

    def _is_new_index(self, operation: SchemaOperation) -> bool:
        table = self._schema.indexes.get(operation.name, "")
        return operation.name in self._state.new_indexes or table in self._state.new_tables

    # --- rules about columns

    def _add_column(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        column = operation.column
        if column is None:
            return
        subject = f"{operation.table}.{column.name}"
        yield from self._column_type(operation.table, column)
        if self._is_new(operation):
            return
        if is_serial(column.type) or column.identity:
            yield RuleViolation("MG202", subject)
        elif column.generated:
            if column.generated == "stored":
                yield RuleViolation("MG203", subject)
        else:
            yield from self._default_of(subject, column)
        if column.type in self._schema.checked_domains:
            yield RuleViolation("MG214", subject, f"the domain is {column.type}")
        clauses = (
            ("CHECK", column.check),
            ("UNIQUE", column.unique),
            ("REFERENCES", bool(column.references)),
        )
        for clause, given in clauses:
            if given:
                yield RuleViolation("MG206", subject, f"the clause is {clause}")

    def _default_of(self, subject: str, column: ColumnDefinition) -> Iterator[RuleViolation]:
        volatility = default_volatility(column.default)
        if not column.default:
            if column.not_null:
                yield RuleViolation("MG204", subject)
        elif volatility == "sequence":
            yield RuleViolation("MG202", subject, "its default is nextval")
        elif volatility == "volatile":
            yield RuleViolation("MG201", subject)
        elif self._version < 11:
            yield RuleViolation(
                "MG201", subject, f"PostgreSQL {self._version} rewrites the table for every default"
            )
        elif volatility == "unknown":
            yield RuleViolation(
                "MG201", subject, "the linter does not know whether the function is volatile", "warning"
            )

    def _column_type(self, table: str, column: ColumnDefinition) -> Iterator[RuleViolation]:
        subject, base = f"{table}.{column.name}", column.type.partition("(")[0].strip()
        if base in {"json", "char", "character", "bpchar"}:
            yield RuleViolation("MG209", subject, f"the type is {column.type}")
        is_key = is_serial(base) or ((column.unique or column.identity) and column.not_null)
        if is_key and base in _INTEGERS:
            yield RuleViolation("MG215", subject, f"the type is {column.type}")

    def _create_table(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        for column in operation.columns:
            yield from self._column_type(operation.table, column)
        if operation.other and operation.other not in self._state.new_tables:
            yield RuleViolation("MG401", operation.other)
        for parent in operation.tables:
            if parent not in self._state.new_tables and parent != operation.table:
                yield RuleViolation("MG311", parent, f"the new table is {operation.table}")

    def _set_not_null(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        proven = self._version >= 12 and self._schema.proves_not_null(operation.table, operation.name)
        has_default = self._state.new_columns.get((operation.table, operation.name), False)
        if not (self._is_new(operation) or proven or has_default):
            yield RuleViolation("MG205", f"{operation.table}.{operation.name}")

    def _set_type(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        subject = f"{operation.table}.{operation.name}"
        yield from self._column_type(operation.table, ColumnDefinition(operation.name, operation.type))
        if self._is_new(operation):
            return
        old = self._schema.columns.get(operation.table, {}).get(operation.name)
        plain = not operation.expression or [token.key for token in operation.expression][:1] == [
            operation.name
        ]
        match type_change(old, operation.type):
            case "timezone":
                yield RuleViolation("MG208", subject)
            case "unknown":
                yield RuleViolation(
                    "MG207", subject, f"to {operation.type}; the old type is unknown", "warning"
                )
            case "rewrite":
                yield RuleViolation("MG207", subject, f"from {old or 'an unknown type'} to {operation.type}")
            case _ if not plain:
                yield RuleViolation("MG207", subject, "USING computes each row")
            case _:
                pass

    def _drop_column(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation) and (operation.table, operation.name) not in self._state.new_columns:
            yield RuleViolation("MG210", f"{operation.table}.{operation.name}")

    def _drop_table(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._is_new(operation):
            return
        yield RuleViolation("MG210", operation.table)
        for parent in sorted(self._schema.references.get(operation.table, set()) - {operation.table}):
            yield RuleViolation("MG310", parent, f"{operation.table} refers to it")

    def _drop_default(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation) and self._state.new_columns.get((operation.table, operation.name)):
            yield RuleViolation("MG602", f"{operation.table}.{operation.name}")

    def _rename_column(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation):
            yield RuleViolation("MG212", f"{operation.table}.{operation.name}")

    def _rename_table(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation):
            yield RuleViolation("MG213", operation.table)

    def _rename_schema(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        yield RuleViolation("MG213", operation.name, "it is the schema of all its tables")

    # --- rules about indexes and constraints

    def _create_index(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._is_new(operation):
            return
        if "concurrently" not in operation.flags:
            if operation.table not in self._schema.partitioned or "only" not in operation.flags:
                yield RuleViolation(
                    "MG301", operation.table, f"the index is {operation.name}" * bool(operation.name)
                )
            return
        if "if_not_exists" in operation.flags:
            yield RuleViolation("MG303", operation.table, f"the index is {operation.name}")
        if operation.table in self._schema.partitioned:
            yield RuleViolation("MG404", operation.table)

    def _drop_index(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if "concurrently" not in operation.flags and not self._is_new_index(operation):
            yield RuleViolation("MG302", operation.name)

    def _reindex(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if "concurrently" not in operation.flags:
            yield RuleViolation("MG309", operation.name)

    def _add_constraint(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        table, not_valid = operation.table, "not_valid" in operation.flags
        name = f"the constraint is {operation.name}" if operation.name else ""
        if self._is_new(operation):
            if operation.type == "foreign" and operation.other not in self._state.new_tables | {table}:
                yield RuleViolation("MG311", operation.other, f"the new table is {table}")
            return
        match operation.type:
            case "unique" | "primary":
                if "using_index" not in operation.flags:
                    yield RuleViolation("MG304", table, name)
            case "exclude":
                yield RuleViolation("MG308", table, name)
            case "foreign":
                if not not_valid:
                    yield RuleViolation("MG305", table, name)
            case "not_null":
                if not not_valid:
                    yield RuleViolation("MG205", f"{table}.{operation.columns[0].name}")
            case _:
                if not not_valid:
                    yield RuleViolation("MG306", table, name)

    def _validate_constraint(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if (operation.table, operation.name) in self._state.not_valid and not self._is_new(operation):
            yield RuleViolation("MG105", operation.table, f"the constraint is {operation.name}")

    def _drop_constraint(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        known = self._schema.constraints.get((operation.table, operation.name))
        if known is not None and known.other and not self._is_new(operation):
            yield RuleViolation("MG310", known.other, f"{operation.table} refers to it")

    def _alter_constraint(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if "domain" in operation.flags:
            yield RuleViolation("MG306", operation.name, "every table that uses the domain is read")

    # --- other rules

    def _attach_partition(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if operation.name not in self._state.new_tables:
            yield RuleViolation("MG403", operation.name)

    def _detach_partition(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not operation.flags:
            yield RuleViolation("MG402", operation.table)

    def _create_trigger(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation):
            yield RuleViolation("MG503", operation.table)

    def _add_enum_value(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._version < 12 and self._state.in_transaction:
            yield RuleViolation("MG504", operation.name)

    def _rename_enum_value(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        yield RuleViolation("MG216", operation.name)

    def _rewrite_rows(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._is_new(operation):
            return
        if "where" not in operation.flags:
            yield RuleViolation("MG505", operation.table)
        yield from self._data(operation)

    def _insert(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if "query" in operation.flags and not self._is_new(operation):
            yield from self._data(operation)

    def _data(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._state.changed_schema:
            yield from self._once("MG106", operation.table)

    def _truncate(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation):
            yield RuleViolation("MG506", operation.table)

    def _rewrite_table(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if not self._is_new(operation):
            yield RuleViolation("MG501", operation.table)

    def _lock_table(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if any(map(blocks_writes, locks_of(operation).values())):
            yield from self._rewrite_table(operation)

    def _vacuum(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if self._state.in_transaction:
            yield RuleViolation("MG104", operation.table, "VACUUM cannot run in a transaction block")
        if "full" in operation.flags:
            yield RuleViolation("MG501", operation.table)

    def _refresh(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if "concurrently" not in operation.flags:
            yield RuleViolation("MG502", operation.table)

    def _query(self, operation: SchemaOperation) -> Iterator[RuleViolation]:
        if operation.name:
            yield RuleViolation("MG802", "", f"what a function changes is not seen: {operation.name}", "note")

    def _dynamic(self, _: SchemaOperation) -> Iterator[RuleViolation]:
        yield RuleViolation("MG802", "", "DO, CALL and EXECUTE run statements that are not in the migration")


def _doubted(violation: RuleViolation) -> RuleViolation:
    """Return the violation of a table that is perhaps new."""
    detail = "; ".join(filter(None, (violation.detail, "IF NOT EXISTS: the table may be in use")))
    level = violation.level or MIGRATION_RULES[violation.rule_id].level
    return replace(violation, detail=detail, level="warning" if level == "error" else level)
