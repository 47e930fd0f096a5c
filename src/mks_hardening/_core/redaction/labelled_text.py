"""Secret names that are data themselves, with their value next to them: JSON, XML, forms, pydantic errors."""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.redaction.step_limit import StepLimit
from mks_hardening._core.redaction.value_end import QUOTES, value_at

__all__ = ["beside_quoted_name", "in_element_or_part"]

_Span = tuple[int, int]

_HOLDER: Final = r"(?:(?:old|new|current|default|field|param)_?)?(?:values?|val|content|data)|default"
_LABEL: Final = (
    r"(?:\w{0,24}(?:name|key|field)|id|label|header|parameter|attribute|property|option|variable|column)"
)
_JSON_MEMBER: Final = (
    rf"[ \t]{{0,4}},\s{{0,8}}{QUOTES}\w{{1,32}}{QUOTES}[ \t]{{0,4}}:[ \t]{{0,4}}"
    rf"(?:{QUOTES}[^\"'`\\{{}}\[\]]{{0,64}}{QUOTES}|[\w.-]{{1,32}})"
)
#: ``"name": "password", "type": "text", "value": …``
_LABELLED: Final = re.compile(
    rf"{QUOTES}(?:{_JSON_MEMBER}){{0,4}}[ \t]{{0,4}},\s{{0,8}}{QUOTES}(?:{_HOLDER}){QUOTES}"
    r"[ \t]{0,4}:[ \t]{0,4}",
    re.IGNORECASE,
)
#: The reverse order, up to the name: ``"value": "…", "name": "``.
_HELD: Final = re.compile(
    rf"{QUOTES}(?:{_HOLDER}){QUOTES}[ \t]{{0,4}}:[ \t]{{0,4}}{QUOTES}(?P<value>[^\"'`\\]{{1,128}}){QUOTES}"
    rf"(?:{_JSON_MEMBER}){{0,3}}[ \t]{{0,4}},\s{{0,8}}{QUOTES}{_LABEL}{QUOTES}[ \t]{{0,4}}:[ \t]{{0,4}}{QUOTES}"
    r"[\w.-]{0,32}\Z",
    re.IGNORECASE,
)
_ATTRIBUTE: Final = r"\s{1,4}[\w:.-]{1,32}=(?:\"[^\"<>]{0,128}\"|'[^'<>]{0,128}')"
#: ``name="password" type="text" value="…"``, the reverse order, and ``<password type="plain">…``.
_ATTRIBUTES: Final = re.compile(
    rf"[\"'](?:{_ATTRIBUTE}){{0,4}}\s{{1,4}}(?:{_HOLDER})=(?=[\"'])", re.IGNORECASE
)
_HELD_ATTRIBUTE: Final = re.compile(
    rf"\s(?:{_HOLDER})=[\"'](?P<value>[^\"'<>]{{1,128}})[\"'](?:{_ATTRIBUTE}){{0,3}}\s{{1,4}}{_LABEL}=[\"']"
    r"[\w.-]{0,32}\Z",
    re.IGNORECASE,
)
_ELEMENT: Final = re.compile(rf"(?:{_ATTRIBUTE}){{1,6}}\s{{0,4}}>(?!\s)")
_IN_ELEMENT: Final = re.compile(r"<[\w:.-]{0,48}\Z")
#: Error message of pydantic: the field name, and the value on the next line.
_INVALID: Final = re.compile(r"\n {1,8}[^\n]{1,300}?\[type=\w{1,64}, input_value=")
#: Part of a multipart form (RFC 7578): further headers, an empty line, the value. Also in its ``repr``.
_LINE_END: Final = r"(?:\r?\n|\\r\\n|\\n)"
_MULTIPART: Final = re.compile(
    rf"\]?(?:\\?\")?(?:;[^\r\n\\]{{0,200}})?(?:{_LINE_END}[^\r\n\\]{{1,200}}){{0,4}}{_LINE_END}{{2}}"
)
_PART_NAME: Final = re.compile(r"(?i:form-data;)[^\r\n]{0,48}name\*?=[^\r\n;]{0,48}\Z")
_MULTIPART_END: Final = re.compile(r"(?:\r?\n|\\r\\n|\\n)--")

#: ``- name: DB_PASSWORD`` with ``value: …`` below it, as in Kubernetes manifests.
_YAML_LABEL: Final = re.compile(
    rf"(?:^|[\s{{])[\"']?{_LABEL}[\"']?:[ ]{{1,4}}[\"']?[\w.-]{{0,48}}\Z", re.IGNORECASE
)
_YAML_VALUE: Final = re.compile(rf"[\"']?(?:,[ ]|[ ]{{0,4}}\r?\n[ \t]{{0,48}})(?:{_HOLDER}):[ ]{{1,4}}(?=\S)")

_BEFORE_VALUE: Final = frozenset(" \t\r\n\"\\];,'")
_MAY_HOLD: Final = re.compile("val|content|data|default", re.IGNORECASE)
#: Maximum distance in characters of a value before its name.
_LONGEST_MEMBER: Final = 320
_WINDOW: Final = 96


def beside_quoted_name(text: str, stem: int, end: int, effort: StepLimit) -> _Span | None:
    """Return the value of ``"name": "password", "value": "…"`` and similar forms, in either order.

    Args:
        text: text that contains the name.
        stem: start of the name's stem.
        end: end of the name, before the quote.
        effort: remaining steps.
    """
    effort.spend(25)
    after = _LABELLED.match(text, end) or _ATTRIBUTES.match(text, end)
    if after:
        return value_at(text, after.end(), effort)
    window = text[max(0, stem - _LONGEST_MEMBER) : stem]
    if not _MAY_HOLD.search(window):
        return None
    effort.spend(60)
    held = _HELD.search(window, window.rfind("{") + 1)
    held = held or _HELD_ATTRIBUTE.search(window, window.rfind("<") + 1)
    offset = stem - len(window)
    return (held.start("value") + offset, held.end("value") + offset) if held else None


def in_element_or_part(text: str, stem: int, end: int, effort: StepLimit) -> _Span | None:
    """Return the value in ``<password type="plain">…``, in a part of a form, or in an error of pydantic."""
    after = text[end : end + 1]
    if after not in _BEFORE_VALUE:
        return None
    before = text[max(0, stem - _WINDOW) : stem]
    if "orm-data" in before and _PART_NAME.search(before) and (part := _MULTIPART.match(text, end)):
        boundary = _MULTIPART_END.search(text, part.end())
        return part.end(), boundary.start() if boundary else len(text)
    if (beside := _YAML_VALUE.match(text, end)) and _YAML_LABEL.search(before):
        return value_at(text, beside.end(), effort)
    if after == "\n" and (invalid := _INVALID.match(text, end)):
        return value_at(text, invalid.end(), effort)
    if after.isspace() and _IN_ELEMENT.search(before) and (element := _ELEMENT.match(text, end)):
        closing = text.find("<", element.end())
        return element.end(), closing if closing >= 0 else len(text)
    return None
