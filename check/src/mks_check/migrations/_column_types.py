"""Which defaults and type changes rewrite a table.

Sources: PostgreSQL documentation, ALTER TABLE, notes; function volatility in ``pg_proc``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, Literal

from mks_check.migrations._sql_script import SqlToken

__all__ = ["TypeChange", "default_volatility", "is_known_function", "is_serial", "type_change"]

TypeChange = Literal["metadata", "rewrite", "unknown", "timezone"]
Volatility = Literal["constant", "volatile", "unknown", "sequence"]

_VOLATILE: Final = frozenset((
    *("random", "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid", "gen_random_bytes", "uuidv4"),
    *("uuidv7", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4", "setval", "currval", "lastval"),
))  # fmt: skip
# Stable and immutable functions that defaults use; every other function may be volatile.
_KNOWN: Final = frozenset((
    *("now", "transaction_timestamp", "statement_timestamp", "current_setting", "current_schema", "timezone"),
    *("lower", "upper", "md5", "concat", "coalesce", "nullif", "greatest", "least", "date_trunc", "to_timestamp"),
    *("make_date", "make_interval", "make_timestamp", "make_timestamptz", "jsonb_build_object", "to_jsonb"),
    *("jsonb_build_array", "json_build_object", "array", "row", "date", "extract", "length", "trim", "replace"),
    *("current_timestamp", "current_time", "localtime", "localtimestamp", "txid_current", "int4range", "tstzrange"),
    *("cast", "substring", "left", "right", "repeat", "to_tsvector", "decode", "encode", "to_char", "numeric"),
    *("varchar", "char", "timestamp", "interval", "bit"),
))  # fmt: skip
_QUERY_FUNCTIONS: Final = frozenset((
    *("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "string_agg", "array_agg", "json_agg"),
    *("jsonb_agg", "json_object_agg", "jsonb_object_agg", "row_number", "rank", "dense_rank", "lag", "lead"),
    *("first_value", "last_value", "generate_series", "unnest", "nextval", "set_config", "to_regclass", "version"),
    *("abs", "ceil", "floor", "round", "format", "position", "strpos", "split_part", "regexp_replace", "age"),
    *("char_length", "octet_length", "array_length", "cardinality", "has_table_privilege", "obj_description"),
))  # fmt: skip
_SERIALS: Final = frozenset({"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"})
_SYNONYMS: Final = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "character varying": "varchar",
    "character": "char",
    "bpchar": "char",
    "decimal": "numeric",
    "timestamptz": "timestamp with time zone",
    "timestamp without time zone": "timestamp",
    "bool": "boolean",
    "float8": "double precision",
    "float4": "real",
}
_TYPE: Final = re.compile(
    r"(?P<name>[^(]+?)\s*(?:\((?P<size>[^)]*)\))?(?P<rest>(?: with(?:out)? time zone)?(?:\[\d*\])*)$"
)


def default_volatility(expression: Iterable[SqlToken]) -> Volatility:
    """Return how often a default is computed: a volatile one for each row, so that the table is rewritten."""
    tokens = list(expression)
    calls = [
        name.key for name, after in pairwise(tokens) if after.text == "(" and name.kind in {"word", "name"}
    ]
    if "nextval" in calls:
        return "sequence"
    if any(call in _VOLATILE for call in calls):
        return "volatile"
    return "constant" if all(call in _KNOWN for call in calls) else "unknown"


def is_known_function(name: str) -> bool:
    """Whether a function neither changes rows nor the schema."""
    return name in _KNOWN or name in _VOLATILE or name in _QUERY_FUNCTIONS or name.startswith("pg_")


def is_serial(kind: str) -> bool:
    """Whether a type is a sequence in disguise."""
    return kind in _SERIALS


def type_change(old: str | None, new: str) -> TypeChange:
    """Return what a type change costs.

    Args:
        old: current type; ``None`` if it is unknown.
        new: new type.
    """
    after, size, rest = _parts(new)
    if old is None:
        return (
            "unknown"
            if (after in {"text", "varchar", "numeric", "timestamp with time zone"} and not rest)
            else "rewrite"
        )
    before, old_size, old_rest = _parts(old)
    if (before, old_size, old_rest) == (after, size, rest):
        return "metadata"
    if rest != old_rest or "[" in rest:  # an array is converted element by element
        return "rewrite"
    if after == "timestamp with time zone" and before == "timestamp":
        return "timezone"
    if after == "text" and before == "varchar":
        return "metadata"
    if after == before and after in {"varchar", "varbit", "bit varying"}:
        return "metadata" if not size or (old_size and size[0] >= old_size[0]) else "rewrite"
    if after == "varchar" and before == "text" and not size:
        return "metadata"
    if after == before == "numeric":
        return "metadata" if not size or _is_wider(old_size, size) else "rewrite"
    if (before, after) == ("cidr", "inet"):
        return "metadata"
    return "rewrite"


def _is_wider(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    scales = (old[1:] or (0,)), (new[1:] or (0,))
    return bool(old) and new[0] >= old[0] and scales[0] == scales[1]


def _parts(kind: str) -> tuple[str, tuple[int, ...], str]:
    found = _TYPE.match(kind)
    if found is None:
        return kind, (), ""
    name, rest = found["name"].strip(), found["rest"]
    zone = ""
    for suffix in (" with time zone", " without time zone"):
        if rest.startswith(suffix):
            zone, rest = suffix, rest.removeprefix(suffix)
        elif name.endswith(suffix):
            zone, name = suffix, name.removesuffix(suffix)
    name += zone
    name = _SYNONYMS.get(name, name)
    size = tuple(int(part) for part in (found["size"] or "").split(",") if part.strip().isdigit())
    return name, size, rest
