"""Rules about schema changes on tables in use, for PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mks_hardening._core.sarif import SarifLevel

__all__ = ["MIGRATION_RULES", "MigrationRule"]

_DOCS: Final = "https://www.postgresql.org/docs/current/"
_LOCKS: Final = f"{_DOCS}explicit-locking.html#LOCKING-TABLES"
_ALTER: Final = f"{_DOCS}sql-altertable.html"
_NOTES: Final = f"{_ALTER}#SQL-ALTERTABLE-NOTES"
_INDEX: Final = f"{_DOCS}sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"


@dataclass(frozen=True, slots=True)
class MigrationRule:
    """A rule of the migration linter.

    Attributes:
        id: stable identifier, for example ``MG301``.
        name: short name with dashes.
        level: ``error``: it blocks or breaks a running application; ``warning``: it may; ``note``: advice.
        reason: what happens in a database in use.
        steps: the safe way, one step after the other.
        link: page of the PostgreSQL documentation.
    """

    id: str
    name: str
    level: SarifLevel
    reason: str
    steps: tuple[str, ...]
    link: str


def _rules(*rules: MigrationRule) -> dict[str, MigrationRule]:
    return {rule.id: rule for rule in rules}


MIGRATION_RULES: Final[dict[str, MigrationRule]] = _rules(
    MigrationRule(
        "MG101",
        "no-lock-timeout",
        "error",
        "A statement that waits for a lock makes every later query of the table wait behind it. Without "
        "lock_timeout one long transaction stops the application.",
        (
            "Execute SET LOCAL lock_timeout = '2s' first, or set it in the program that runs migrations.",
            "Retry the whole transaction after SQLSTATE 55P03, with a growing delay (LockRetry).",
        ),
        f"{_DOCS}runtime-config-client.html#GUC-LOCK-TIMEOUT",
    ),
    MigrationRule(
        "MG102",
        "slow-step-under-lock",
        "error",
        "A lock is held until the transaction ends: a statement that reads or writes many rows after it blocks "
        "the locked table for its whole duration.",
        ("Run the slow statement in a transaction, or migration, of its own.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG103",
        "several-tables-locked",
        "warning",
        "Two tables in use are locked in one transaction. Both stay locked until it ends, and another "
        "transaction that uses them in the other order causes a deadlock.",
        ("Use one migration for each table.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG104",
        "concurrent-step-in-transaction",
        "error",
        "CONCURRENTLY cannot run in a transaction block. Other operations in the same migration are committed "
        "before it, and fail when the migration is repeated.",
        (
            "Make it the only operation of its migration.",
            "Alembic: with op.get_context().autocommit_block(). Django: atomic = False.",
        ),
        _INDEX,
    ),
    MigrationRule(
        "MG105",
        "validated-in-same-transaction",
        "error",
        "NOT VALID keeps its lock until the transaction ends, so VALIDATE in the same transaction scans the "
        "table under the strong lock that NOT VALID should avoid.",
        ("Validate in a second migration.",),
        _NOTES,
    ),
    MigrationRule(
        "MG106",
        "data-with-schema",
        "warning",
        "Rows are changed in the same migration as the schema. Locks are held longer, and a failure repeats "
        "both.",
        ("Change rows in a migration of their own, in batches (SafeOperations.backfill).",),
        _LOCKS,
    ),
    MigrationRule(
        "MG201",
        "volatile-default",
        "error",
        "A default that is computed for each row rewrites the table while reads and writes are blocked. Before "
        "PostgreSQL 11 every default does.",
        (
            "Add the column without a default.",
            "Set the default, which then applies to new rows.",
            "Fill the old rows in batches (SafeOperations.backfill).",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG202",
        "add-serial",
        "error",
        "A serial or identity column is filled for each row: the table is rewritten while reads and writes are "
        "blocked.",
        (
            "Add a nullable bigint column and a sequence.",
            "Set nextval as its default, and fill the old rows in batches.",
            "Add NOT NULL in steps (SafeOperations.set_not_null), then ADD GENERATED AS IDENTITY.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG203",
        "add-stored-column",
        "error",
        "A stored generated column is computed for each row: the table is rewritten while reads and writes are "
        "blocked.",
        ("Use a virtual column (PostgreSQL 18), or a plain column that a trigger fills for new rows.",),
        f"{_DOCS}ddl-generated-columns.html",
    ),
    MigrationRule(
        "MG204",
        "not-null-without-default",
        "error",
        "The statement fails if the table has rows, and running code that does not know the column cannot "
        "insert.",
        ("Add the column with a constant default, or nullable, filled in batches, then NOT NULL in steps.",),
        _ALTER,
    ),
    MigrationRule(
        "MG205",
        "set-not-null",
        "error",
        "SET NOT NULL reads the whole table while reads and writes are blocked, unless a validated CHECK proves"
        " it.",
        (
            "ADD CONSTRAINT c CHECK (column IS NOT NULL) NOT VALID.",
            "VALIDATE CONSTRAINT c in a second transaction.",
            "SET NOT NULL, which then reads nothing (PostgreSQL 12), and drop the constraint.",
            "SafeOperations.set_not_null executes these steps.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG206",
        "constraint-in-add-column",
        "error",
        "A CHECK, UNIQUE or REFERENCES clause of a new column reads the table, builds an index or locks the "
        "referenced table while reads and writes are blocked.",
        (
            "Add the column alone.",
            "Add the constraint with NOT VALID, or USING INDEX, and validate it afterwards.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG207",
        "type-change",
        "error",
        "Changing the type rewrites the table and its indexes while reads and writes are blocked.",
        (
            "Add a column of the new type, write both, and fill old rows in batches.",
            "Read the new column, then drop the old one in a later release.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG208",
        "timestamp-to-timestamptz",
        "warning",
        "timestamp becomes timestamptz without a rewrite only if the session's time zone is UTC; in every other"
        " zone the table is rewritten.",
        ("If the values are UTC, execute SET LOCAL timezone = 'UTC' first.",),
        _NOTES,
    ),
    MigrationRule(
        "MG209",
        "unsuitable-type",
        "warning",
        "json has no equality operator and cannot be indexed, so DISTINCT and GROUP BY fail; char(n) pads with "
        "spaces.",
        ("Use jsonb.", "Use text or varchar(n)."),
        f"{_DOCS}datatype.html",
    ),
    MigrationRule(
        "MG210",
        "drop-in-use",
        "error",
        "Running code still reads or writes the column or table, and the data is lost.",
        (
            "Remove every use from the application, and deploy it.",
            "Drop it in a later release, and state it: mks: contract 3.2 nothing uses orders.old since then.",
        ),
        _ALTER,
    ),
    MigrationRule(
        "MG211",
        "contract-too-early",
        "error",
        "A release that is still running uses what the migration removes.",
        (
            "Deploy the release of the mark everywhere, and wait until older processes have ended.",
            "Pass the oldest release that is running (--oldest-release).",
        ),
        _ALTER,
    ),
    MigrationRule(
        "MG212",
        "rename-column",
        "error",
        "Running code still uses the old name.",
        (
            "Keep the name, and rename the attribute in the application only.",
            "Or add a column with the new name, write both, fill old rows, and drop the old one later.",
        ),
        _ALTER,
    ),
    MigrationRule(
        "MG213",
        "rename-table",
        "error",
        "Running code still uses the old name.",
        ("Keep the name.", "Or rename, and create a view with the old name in the same transaction."),
        _ALTER,
    ),
    MigrationRule(
        "MG214",
        "domain-with-check",
        "error",
        "A new column whose domain has a CHECK or NOT NULL rewrites the table while reads and writes are "
        "blocked.",
        ("Use the base type, and add a CHECK with NOT VALID.",),
        _NOTES,
    ),
    MigrationRule(
        "MG215",
        "small-key",
        "note",
        "An integer key ends at 2,147,483,647, and changing its type later rewrites the table.",
        ("Use bigint for keys of tables that grow.",),
        f"{_DOCS}datatype-numeric.html",
    ),
    MigrationRule(
        "MG216",
        "rename-enum-value",
        "error",
        "Running code still writes the old value, which is rejected from then on.",
        ("Add the new value, write it, change the old rows in batches, and keep the old value.",),
        f"{_DOCS}sql-altertype.html",
    ),
    MigrationRule(
        "MG301",
        "index-not-concurrent",
        "error",
        "CREATE INDEX blocks writes until it is built.",
        (
            "CREATE INDEX CONCURRENTLY, alone in its migration and outside a transaction.",
            "SafeOperations.add_index also replaces the INVALID index of an interrupted build.",
        ),
        _INDEX,
    ),
    MigrationRule(
        "MG302",
        "drop-index-not-concurrent",
        "error",
        "DROP INDEX waits for all queries of the table, and every later query waits behind it.",
        ("DROP INDEX CONCURRENTLY, alone in its migration and outside a transaction.",),
        f"{_DOCS}sql-dropindex.html",
    ),
    MigrationRule(
        "MG303",
        "concurrent-if-not-exists",
        "error",
        "IF NOT EXISTS accepts the INVALID index that an interrupted build leaves, which serves no query.",
        ("Use SafeOperations.add_index, or drop an invalid index first.",),
        _INDEX,
    ),
    MigrationRule(
        "MG304",
        "key-without-index",
        "error",
        "UNIQUE and PRIMARY KEY build their index while reads and writes are blocked.",
        (
            "CREATE UNIQUE INDEX CONCURRENTLY in a migration of its own.",
            "ADD CONSTRAINT … UNIQUE USING INDEX in the next one. SafeOperations.add_unique executes both.",
        ),
        _ALTER,
    ),
    MigrationRule(
        "MG305",
        "foreign-key-validated-at-once",
        "error",
        "ADD FOREIGN KEY reads the whole table while writes to both tables are blocked.",
        (
            "Add it with NOT VALID: it applies to new rows at once.",
            "VALIDATE CONSTRAINT in a second migration. SafeOperations.add_foreign_key executes both.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG306",
        "check-validated-at-once",
        "error",
        "ADD CHECK reads the whole table while reads and writes are blocked.",
        (
            "Add it with NOT VALID: it applies to new rows at once.",
            "VALIDATE CONSTRAINT in a second migration. SafeOperations.add_check executes both.",
        ),
        _NOTES,
    ),
    MigrationRule(
        "MG308",
        "exclusion-constraint",
        "error",
        "An exclusion constraint builds its index while reads and writes are blocked; it cannot use an existing"
        " one.",
        ("Add it to a new table and move the rows, or plan a maintenance window.",),
        _ALTER,
    ),
    MigrationRule(
        "MG309",
        "reindex-not-concurrent",
        "error",
        "REINDEX blocks writes, and reads that would use the index.",
        ("REINDEX … CONCURRENTLY outside a transaction, and drop what a failed run leaves (suffix _ccnew).",),
        f"{_DOCS}sql-reindex.html",
    ),
    MigrationRule(
        "MG310",
        "foreign-key-dropped",
        "warning",
        "Dropping a foreign key, or a table that has one, also locks the referenced table against reads and "
        "writes.",
        ("Drop the foreign key alone, with lock_timeout and retries.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG311",
        "reference-to-table-in-use",
        "warning",
        "A foreign key of a new table blocks writes to the referenced table until the transaction ends.",
        ("Keep the transaction short, set lock_timeout, and retry.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG401",
        "partition-of",
        "warning",
        "CREATE TABLE … PARTITION OF blocks reads and writes of the partitioned table.",
        ("Create the table alone with a CHECK that matches its bounds, then ATTACH PARTITION.",),
        f"{_DOCS}ddl-partitioning.html",
    ),
    MigrationRule(
        "MG402",
        "detach-partition",
        "error",
        "DETACH PARTITION blocks reads and writes of the partitioned table.",
        ("DETACH PARTITION … CONCURRENTLY (PostgreSQL 14), outside a transaction.",),
        f"{_DOCS}ddl-partitioning.html",
    ),
    MigrationRule(
        "MG403",
        "attach-partition",
        "warning",
        "ATTACH PARTITION reads the whole new partition unless a validated CHECK matches its bounds.",
        ("Add the CHECK with NOT VALID, and validate it first.",),
        f"{_DOCS}ddl-partitioning.html",
    ),
    MigrationRule(
        "MG404",
        "index-on-partitioned-table",
        "error",
        "A partitioned table cannot have an index built concurrently.",
        ("CREATE INDEX … ON ONLY the parent, concurrently on each partition, then ATTACH PARTITION.",),
        f"{_DOCS}ddl-partitioning.html",
    ),
    MigrationRule(
        "MG501",
        "table-rewritten-or-locked",
        "error",
        "CLUSTER, VACUUM FULL, SET LOGGED, SET TABLESPACE and LOCK block the table, most of them while it is "
        "rewritten.",
        ("Use pg_repack or a maintenance window.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG502",
        "refresh-not-concurrent",
        "error",
        "REFRESH MATERIALIZED VIEW blocks reads of the view until it is computed.",
        ("Create a unique index on the view, then REFRESH MATERIALIZED VIEW CONCURRENTLY.",),
        f"{_DOCS}sql-refreshmaterializedview.html",
    ),
    MigrationRule(
        "MG503",
        "trigger-on-table-in-use",
        "warning",
        "CREATE TRIGGER blocks writes while it waits and until the transaction ends; the trigger then runs in "
        "every write of running code.",
        ("Create it alone, with lock_timeout and retries.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG504",
        "enum-value-in-transaction",
        "error",
        "A new enum value cannot be used before its transaction is committed; before PostgreSQL 12 it cannot "
        "even be added in a transaction.",
        ("Add the value in a migration of its own, and use it in the next one.",),
        f"{_DOCS}sql-altertype.html#SQL-ALTERTYPE-NOTES",
    ),
    MigrationRule(
        "MG505",
        "whole-table-update",
        "error",
        "One UPDATE or DELETE of all rows locks every row until it ends, doubles the table and delays replicas.",
        ("Change rows in batches, each in its own transaction (SafeOperations.backfill).",),
        f"{_DOCS}routine-vacuuming.html",
    ),
    MigrationRule(
        "MG506",
        "truncate",
        "error",
        "TRUNCATE removes all rows and blocks reads and writes.",
        ("State why nobody needs the rows.",),
        f"{_DOCS}sql-truncate.html",
    ),
    MigrationRule(
        "MG602",
        "default-dropped-at-once",
        "error",
        "The default of a new NOT NULL column is dropped in the same migration: running code that does not know"
        " the column can no longer insert.",
        (
            "Keep the default until no old release runs. Django: db_default instead of default.",
            "Alembic: keep server_default.",
        ),
        _ALTER,
    ),
    MigrationRule(
        "MG801",
        "unreadable",
        "error",
        "The linter cannot read this statement, so nobody knows what it locks.",
        ("Rewrite it in plain SQL, or state why it is safe.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG802",
        "not-judged",
        "error",
        "What the migration does depends on code or rows, which the linter does not see.",
        ("State why it is safe: which tables it touches, how many rows, how long it runs.",),
        _LOCKS,
    ),
    MigrationRule(
        "MG901",
        "invalid-waiver",
        "error",
        "A waiver needs the identifier of a rule and a reason, a contract mark needs a release and a reason.",
        (
            "Write: mks: allow MG301 the table has 20 rows",
            "Or: mks: contract 3.2 nothing uses orders.old since then",
        ),
        "",
    ),
    MigrationRule(
        "MG902",
        "unused-waiver",
        "warning",
        "The waiver matches no finding of this migration.",
        ("Remove it.",),
        "",
    ),
)
"""All rules by identifier. An identifier never changes its meaning."""
