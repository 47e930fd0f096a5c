"""Masking of personal data in the database of a staging site: by a declared table, in one transaction."""

from __future__ import annotations

import re
import secrets
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

if TYPE_CHECKING:
    import psycopg

    from mks_deploy.settings.definitions import Settings

__all__ = ["MASKS", "Column", "MaskError", "MaskTable", "mark_staging", "mask", "read_mask_table"]


class MaskError(RuntimeError):
    """Nothing was masked: the message lists why. It never contains a value of the database."""


MASKS: Final[Mapping[str, LiteralString]] = {
    "keep": "",
    "null": "NULL",
    "empty": "''",
    "token": "left({hash}, 16)",
    "email": "'user-' || left({hash}, 16) || '@masked.invalid'",
    "name": "'Person ' || left({hash}, 8)",
    "phone": "'000-' || left(translate({hash}, 'abcdef', '012345'), 8)",
    "text": "CASE WHEN {column}::text = '' THEN '' ELSE rpad('masked ', length({column}::text), 'masked ') END",
    "address": "('192.0.2.' || 1 + get_byte(decode({hash}, 'hex'), 0) %% 254)::inet",
    "birthday": "make_date(extract(year FROM {column})::int, 1, 1)",
}
"""Masks by name, each an expression of SQL; ``{hash}`` is a digest of the value with a key of this run.

RFC 2606 reserves ``.invalid``, and RFC 5737 ``192.0.2.0/24``: nothing is ever sent there.
"""

_ROWS: Final = frozenset({"cascade", "delete", "keep"})
_HASH: Final = "encode(sha256(%(key)s || convert_to({column}::text, 'UTF8')), 'hex')"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][\w$]{0,62}")
_PERSONAL: Final = re.compile(
    r"(?:^|_)(?:e?mail|name|first|last|sur|user|login|phone|tel|mobile|fax|address|addr|street|zip|postal|city|birth|"
    r"birthday|birthdate|dob|born|sex|gender|ip|password|passwd|pwd|secret|token|totp|otp|recovery|iban|account|card|cvv|ssn|salary|"
    r"comment|note|remark|message|body|lat|lng|kana|furigana|shimei|jusho)(?:s|_|$|name|ed|code|no|number|hash)|"
    "氏名|名前|住所|電話|生年|メール|備考",
    re.IGNORECASE,
)
# Numbers and times: keys and dates of events are named like the thing that they belong to.
_PERSONAL_NUMBER: Final = re.compile(
    r"(?:^|_)(?:phone|tel|mobile|fax|zip|postal|birth|birthday|birthdate|dob|born|salary|lat|latitude|lng|longitude|"
    r"ssn|my_?number|(?:card|account)_?(?:no|number))(?:s|_at|_date|_?code|_?no|_?number)?$",
    re.IGNORECASE,
)
_TEXTS: Final = frozenset(
    {"text", "character varying", "character", "json", "jsonb", "xml", "ARRAY", "USER-DEFINED", "hstore"}
)
_OPAQUE: Final = frozenset({"bytea", "inet", "cidr", "macaddr", "macaddr8", "oid", "point", "tsvector"})
_LOOKS: Final = (
    r"[[:alnum:]._%+-]+@[[:alnum:]-]+(\.[[:alnum:]-]+)+|\+?[0-9]{2,4}[- ()][0-9]{2,4}[- )][0-9]{3,4}"
)
_MASKED: Final = r"@masked\.invalid"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the database: ``table`` has the schema in front unless it is ``public``."""

    schema: str
    relation: str
    name: str
    kind: str

    @property
    def table(self) -> str:
        """The table as the file names it."""
        return self.relation if self.schema == "public" else f"{self.schema}.{self.relation}"


@dataclass(frozen=True, slots=True)
class MaskTable:
    """What happens to each table.

    Attributes:
        columns: mask of each column, by table and column.
        rows: ``delete`` or ``keep`` for whole tables; ``cascade`` where rows may be deleted with those that they
            refer to.
    """

    columns: Mapping[tuple[str, str], str]
    rows: Mapping[str, str]


def read_mask_table(text: str) -> MaskTable:
    """Read a table of masks: a TOML table for each table of the database, ``rows`` for all of its rows.

    Raises:
        MaskError: lists every error.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MaskError(f"the table of masks is not TOML: {error}") from None
    columns, rows, errors = dict[tuple[str, str], str](), dict[str, str](), list[str]()
    for name, table in _tables(given):
        for key, chosen in table.items():
            if key == "rows" and chosen in _ROWS:
                rows[name] = chosen
            elif key == "rows":
                errors.append(f"{name}.rows must be {' or '.join(sorted(_ROWS))}")
            elif not isinstance(chosen, str) or chosen not in MASKS:
                errors.append(f"{name}.{key[:63]} must be one of {', '.join(MASKS)}")
            else:
                columns[name, key] = chosen
    if errors:
        raise MaskError("\n".join(errors))
    return MaskTable(columns, rows)


def _tables(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tables; ``[auth.users]`` is the table ``users`` of the schema ``auth``."""
    for name, value in given.items():
        if not isinstance(value, Mapping) or not _IDENTIFIER.fullmatch(name):
            raise MaskError(f"{prefix}{name[:63]} must be a table: [{name[:63]}]")
        if not prefix and value and all(isinstance(each, Mapping) for each in value.values()):
            yield from _tables(value, f"{name}.")
        else:
            yield f"{prefix}{name}", value


def mark_staging(connection: psycopg.Connection[Any], settings: Settings, name: str) -> None:
    """Mark a database as one of staging; a restored backup does not carry the mark.

    Args:
        connection: connection as the owner of the database.
        settings: settings of this site.
        name: name of the database, repeated by the operator.

    Raises:
        MaskError: the settings are those of production, or the name is another one.
    """
    from psycopg import sql

    _refuse_production(settings)
    if name != connection.info.dbname:
        raise MaskError(f"--mark must repeat the name of the database, {connection.info.dbname}")
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET mks.environment = 'staging'").format(sql.Identifier(name))
    )
    connection.commit()


def _refuse_production(settings: Settings) -> None:
    if settings.site.environment != "staging":
        raise MaskError('mask works only with site.environment = "staging"')


def mask(
    connection: psycopg.Connection[Any], settings: Settings, table: MaskTable, *, rehearse: bool = False
) -> dict[str, int]:
    """Mask the database, or change nothing.

    Equal values get equal masks within one run, in all tables; two runs have nothing in common. What foreign keys
    and triggers change besides is counted; if they delete rows of a table that does not declare it, this fails.

    Args:
        connection: a fresh connection as the owner of the tables.
        settings: settings of this site.
        table: what happens to each column.
        rehearse: whether to take everything back at the end.

    Returns:
        Rows changed or deleted, by table, also of tables that only a foreign key or a trigger changed.

    Raises:
        MaskError: the site or the database is not of staging, a column is undeclared or unknown, the database
            refused a change, rows were deleted that no rule names, or something that looks like personal data is
            left.
    """
    import psycopg

    _refuse_production(settings)
    try:
        with connection.transaction(force_rollback=rehearse):
            if _mark(connection) != "staging":
                raise MaskError(
                    f"the database {connection.info.dbname} is not marked as staging: mks-deploy mask --mark "
                    f"{connection.info.dbname}, after you made sure that nobody needs its data"
                )
            columns = list(_columns(connection))
            if errors := [*_unknown(table, columns), *_undeclared(connection, table, columns)]:
                raise MaskError("\n".join(errors))
            before = _touched(connection)
            changed = dict(_changes(connection, table, columns))
            touched = _touched(connection)
            touched.subtract(before)
            for name in _partitioned(connection):
                # A row whose mask belongs to another partition is deleted here and inserted there.
                moved = max(min(touched[name, "inserted"], touched[name, "deleted"]), 0)
                touched.subtract({(name, "inserted"): moved, (name, "deleted"): moved})
            _refresh_views(connection)
            if left := [*_side_effects(table, touched), *_left(connection, table, columns)]:
                raise MaskError("\n".join(left))
            # A rule that found no row may have come after a foreign key that deleted them.
            others = {
                name: count
                for (name, what), count in touched.items()
                if count > 0 and (what == "deleted" or not changed.get(name))
            }
            return {**changed, **others}
    except psycopg.Error as error:
        # The detail of an error of PostgreSQL shows values.
        said = error.diag.message_primary or type(error).__name__
        raise MaskError(f"PostgreSQL refused, and nothing was changed: {said}") from None


def _mark(connection: psycopg.Connection[Any]) -> str:
    # What this session sets itself does not count, only what is stored with the database.
    row = connection.execute(
        "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
        "WHERE d.datname = current_database() AND s.setrole = 0"
    ).fetchone()
    found = dict(each.split("=", 1) for each in (row[0] if row else ()))
    return str(found.get("mks.environment", ""))


def _columns(connection: psycopg.Connection[Any]) -> Iterator[Column]:
    rows = connection.execute(
        "SELECT c.table_schema, c.table_name, c.column_name, c.data_type FROM information_schema.columns c "
        "JOIN information_schema.tables t USING (table_schema, table_name) "
        "JOIN pg_namespace n ON n.nspname = c.table_schema "
        "JOIN pg_class p ON p.relnamespace = n.oid AND p.relname = c.table_name "
        # A partition is masked with its table: twice would be another mask.
        "WHERE t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER' AND NOT p.relispartition "
        "AND c.table_schema NOT IN ('pg_catalog', 'information_schema') "
        "ORDER BY c.table_schema, c.table_name, c.ordinal_position"
    )
    return (Column(*row) for row in rows.fetchall())


def _unknown(table: MaskTable, columns: list[Column]) -> Iterator[str]:
    known = {(each.table, each.name) for each in columns}
    tables = {each.table for each in columns}
    yield from (f"{name}.{key} is no column of the database" for name, key in table.columns.keys() - known)
    yield from (f"{name} is no table of the database" for name in table.rows.keys() - tables)


def _undeclared(
    connection: psycopg.Connection[Any], table: MaskTable, columns: list[Column]
) -> Iterator[str]:
    for each in columns:
        if (each.table, each.name) in table.columns or table.rows.get(each.table, "cascade") != "cascade":
            continue
        if each.kind in _TEXTS and _finds(connection, each, _LOOKS):
            yield f"{each.table}.{each.name} holds mail addresses or telephone numbers: declare it"
        elif each.kind in _OPAQUE or (each.kind != "boolean" and _is_personal(each)):
            yield f"{each.table}.{each.name} looks like personal data: declare it, or keep it"


def _is_personal(column: Column) -> bool:
    names = _PERSONAL if column.kind in _TEXTS | {"date"} else _PERSONAL_NUMBER
    return names.search(column.name) is not None


def _finds(connection: psycopg.Connection[Any], column: Column, pattern: str, *, but: str = "") -> bool:
    from psycopg import sql

    query = sql.SQL("SELECT 1 FROM {} WHERE regexp_replace({}::text, %s, '', 'g') ~ %s LIMIT 1").format(
        sql.Identifier(column.schema, column.relation), sql.Identifier(column.name)
    )
    masked = rf"[[:alnum:]-]+{but}" if but else "(?!)"
    return connection.execute(query, (masked, pattern)).fetchone() is not None


def _changes(
    connection: psycopg.Connection[Any], table: MaskTable, columns: list[Column]
) -> Iterator[tuple[str, int]]:
    from psycopg import sql

    key = secrets.token_bytes(32)
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    emptied = list[sql.Composed]()
    for name in dict.fromkeys(each.table for each in columns):
        of_it = [each for each in columns if each.table == name]
        relation = sql.Identifier(of_it[0].schema, of_it[0].relation)
        if table.rows.get(name) == "delete":
            emptied.append(sql.SQL("DELETE FROM {}").format(relation))
            yield name, connection.execute(emptied[-1]).rowcount
            continue
        assignments = [
            sql.SQL("{} = {}").format(sql.Identifier(each.name), _expression(chosen, each))
            for each in of_it
            if (chosen := table.columns.get((name, each.name), "keep")) != "keep"
        ]
        if assignments:
            query = sql.SQL("UPDATE {} SET {}").format(relation, sql.SQL(", ").join(assignments))
            yield name, connection.execute(query, {"key": key}).rowcount
    # A trigger, deferred ones included, may have written the values of before into a table that was emptied.
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for query in emptied:
        connection.execute(query)


def _touched(connection: psycopg.Connection[Any]) -> Counter[tuple[str, str]]:
    """Return the number of rows that this session has inserted, updated and deleted in each table.

    Those of foreign keys and triggers are among them; a partition counts as its table.
    """
    found = connection.execute(
        "SELECT n.nspname, c.relname, s.n_tup_ins, s.n_tup_upd, s.n_tup_del FROM pg_stat_xact_user_tables s "
        "JOIN pg_class c ON c.oid = coalesce(pg_partition_root(s.relid), s.relid) "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE current_setting('track_counts')::bool"
    ).fetchall()
    counts = Counter[tuple[str, str]]()
    for schema, name, *numbers in found:
        for what, number in zip(("inserted", "updated", "deleted"), numbers, strict=True):
            counts[Column(schema, name, "", "").table, what] += number
    return counts


def _partitioned(connection: psycopg.Connection[Any]) -> list[str]:
    found = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'p' AND NOT c.relispartition"
    ).fetchall()
    return [Column(schema, name, "", "").table for schema, name in found]


def _side_effects(table: MaskTable, touched: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield what foreign keys and triggers did that no rule allows."""
    if not touched:
        yield "track_counts of PostgreSQL is off: without it, nobody knows what foreign keys and triggers delete"
    for (name, what), count in sorted(touched.items()):
        rule = table.rows.get(name)
        if what == "inserted" and count > 0 and rule != "delete":
            yield f'{name} got rows from a trigger, perhaps with what was masked: declare rows = "delete"'
        elif what == "deleted" and count > 0 and rule not in {"delete", "cascade"}:
            yield (
                f"{name} would lose {count} rows with those of another table (ON DELETE CASCADE, or a trigger): "
                'declare rows = "delete", or rows = "cascade" beside its columns if they may go'
            )


def _refresh_views(connection: psycopg.Connection[Any]) -> None:
    """Fill the materialized views again: they hold rows of before."""
    from psycopg import sql

    found = connection.execute(
        # One that reads another is younger.
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid"
    ).fetchall()
    for ending in (" WITH NO DATA", ""):
        for schema, name in found:
            query = sql.SQL("REFRESH MATERIALIZED VIEW {}" + ending)
            connection.execute(query.format(sql.Identifier(schema, name)))


def _expression(chosen: str, column: Column) -> Any:
    from psycopg import sql

    name = sql.Identifier(column.name)
    if chosen == "null":  # of any type
        return sql.SQL("NULL")
    masked = sql.SQL(MASKS[chosen]).format(column=name, hash=sql.SQL(_HASH).format(column=name))
    # A value that is not there is no personal data, and a column that must be unique may hold many of them.
    return sql.SQL("CASE WHEN {} IS NULL THEN NULL ELSE {} END").format(name, masked)


def _left(connection: psycopg.Connection[Any], table: MaskTable, columns: list[Column]) -> Iterator[str]:
    """Yield the columns that were to be masked and still hold addresses: a mask that does not fit."""
    for each in columns:
        chosen = table.columns.get((each.table, each.name), "keep")
        if chosen != "keep" and each.kind in _TEXTS and table.rows.get(each.table) != "delete":
            if chosen == "phone":
                continue
            if _finds(connection, each, _LOOKS, but=_MASKED):
                yield f"{each.table}.{each.name} still holds mail addresses or telephone numbers"
