"""Settings of an application: what is written is read back, and any other text is a clear refusal."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.exceptions import SettingsError
from mks_hardening.settings import ApplicationSettings, setting

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_./", min_size=1, max_size=12)
TYPES: dict[str, tuple[Any, dict[str, Any], st.SearchStrategy[Any]]] = {
    "boolean": (bool, {}, st.booleans()),
    "integer": (int, {"minimum": -50, "maximum": 10**12}, st.integers(-50, 10**12)),
    "size": (int, {"kind": "size"}, st.integers(0, 1024**4)),
    "decimal": (float, {}, st.decimals(-1000, 1000, places=2).map(float)),
    "duration": (float, {"kind": "duration"}, st.integers(1, 10**6).map(float)),
    "delta": (timedelta, {}, st.integers(1, 10**6).map(lambda number: timedelta(seconds=number))),
    "text": (str, {}, WORD),
    "path": (Path, {}, WORD.map(Path)),
    "choice": (Literal["red", "green"], {}, st.sampled_from(["red", "green"])),
    "list": (tuple[int, ...], {}, st.lists(st.integers(0, 10**6), min_size=1, max_size=5).map(tuple)),
    "set": (frozenset[str], {}, st.frozensets(WORD, min_size=1, max_size=5)),
}


def declare(annotation: Any, **options: Any) -> type[ApplicationSettings]:
    namespace = {
        "__annotations__": {"value": annotation},
        "value": setting("Value.", name="PROPERTY_VALUE", **options),
        "__module__": __name__,
    }
    made: Any = type(ApplicationSettings)("Made", (ApplicationSettings,), namespace, prefix="PROPERTY_")
    return made


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_default_is_what_its_text_means(name: str, data: st.DataObject) -> None:
    annotation, options, values = TYPES[name]
    value = data.draw(values)
    (row,) = declare(annotation, default=value, **options).variables()
    found: Any = declare(annotation, **options).from_env(environ={"PROPERTY_VALUE": row.default_text})
    assert found.value == value
    assert type(found.value) is type(value)


REQUIRED = {name: declare(kind, **options, secret=True) for name, (kind, options, _) in TYPES.items()}


@pytest.mark.parametrize("name", TYPES)
@given(
    text=st.text(max_size=30) | st.from_regex(r"[0-9.,msh ]{1,10}|[a-z,]{1,10}", fullmatch=True),
    secret=st.sampled_from(["", "hunter2"]),
)
def test_any_other_text_is_refused_without_being_shown(name: str, text: str, secret: str) -> None:
    try:
        REQUIRED[name].from_env(environ={"PROPERTY_VALUE": text + secret, "MKS_ENV": "test"})
    except SettingsError as error:
        (sentence,) = error.errors
        assert sentence.startswith(("PROPERTY_VALUE must be ", "PROPERTY_VALUE is missing: Value."))
        assert "hunter2" not in sentence
