"""JSON Schemas of request fields and responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowledge_system.domain.validation import Field, Flag, Integer, Tags, Text

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
FILE: Schema = {"type": "string", "format": "binary"}
MOMENT: Schema = {"type": "string", "format": "date-time"}

# Characters that ``validation.Text`` rejects, as an ECMA-262 character class.
_REFUSED = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069"
_LINES = r"\n\r\t\u2028\u2029"
_SPACES = r" \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"


def thing(properties: Mapping[str, Schema]) -> Schema:
    """Build the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def items(schema: Schema) -> Schema:
    """Build the schema of a list."""
    return {"type": "array", "items": schema}


def nullable(schema: Schema) -> Schema:
    """Allow null in addition to the schema's type."""
    return {**schema, "type": [schema["type"], "null"]}


def body(fields: Mapping[str, Field]) -> Schema:
    """Build the schema of a body with these fields."""
    return {
        "type": "object",
        "properties": {name: field(read) for name, read in fields.items()},
        "required": [name for name, read in fields.items() if read.default is None],
        "additionalProperties": False,
    }


def field(read: Field) -> Schema:
    """Build the schema of one field."""
    schema: Schema = {}
    match read:
        case Flag():
            schema = {"type": "boolean"}
        case Integer():
            schema = {"type": "integer", "minimum": read.minimum, "maximum": read.maximum}
        case Tags():
            schema = {"type": "array", "items": field(Text(read.max_length)), "maxItems": read.max_items}
        case Text():
            schema = _text(read)
    if read.default is not None:
        schema["default"] = list(read.default) if isinstance(read.default, tuple) else read.default
    return schema


def _text(read: Text) -> Schema:
    schema: Schema = {"type": "string"}
    if read.choices is not None:
        return {**schema, "enum": list(read.choices)}
    schema["maxLength"] = read.max_length
    if read.min_length:
        schema["minLength"] = read.min_length
    if read.pattern is not None:
        optional = "" if read.min_length else "?"
        return {**schema, "pattern": f"^({read.pattern.pattern}){optional}$"}
    taken = rf"[^{_REFUSED}{'' if read.multiline else _LINES}]"
    if not read.trim or not read.min_length:
        return {**schema, "pattern": f"^{taken}*$"}
    seen = rf"[^{_REFUSED}{_LINES}{_SPACES}]"
    return {**schema, "pattern": f"^{taken}*{seen}{taken}*$"}


PROBLEM: Schema = {
    "type": "object",
    "description": "A refusal (RFC 9457), in the language of Accept-Language.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": STRING,
        "status": NUMBER,
        "detail": STRING,
        "instance": STRING,
        "request_id": STRING,
        "errors": items(thing({"field": STRING, "code": STRING, "message": STRING})),
    },
    "required": ["type", "title", "status", "detail", "instance"],
}
