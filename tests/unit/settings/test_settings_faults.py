"""Every fault of settings that the code knows: it names the variable, what is allowed and what to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mks_hardening._core.environment import variables as reading
from mks_hardening.exceptions import SettingsError
from mks_hardening.settings import HardeningSettings, Variable, _cross_checks, variables

# One of these is refused by every form but plain text, which refuses nothing that is not blank.
WRONG = ("?", "a b", "-1", "hunter2", ",,")
TAKES_ANYTHING = {"text", "path"}
ALLOWED = re.compile(r"must be (a|an|the|one of|1/0|text|comma-separated|base64|random)\b")


def faults_of(environ: dict[str, str]) -> tuple[str, ...]:
    try:
        HardeningSettings.from_env(environ=environ)
    except SettingsError as error:
        return tuple(error.errors)
    return ()


@pytest.mark.parametrize("variable", variables(), ids=lambda variable: variable.name)
def test_a_wrong_value_names_the_variable_and_what_is_allowed(variable: Variable) -> None:
    found = [
        fault
        for text in WRONG
        for fault in faults_of({variable.name: text})
        if fault.startswith(f"{variable.name} must be ")
    ]
    assert bool(found) != (variable.form in TAKES_ANYTHING)
    assert all(ALLOWED.search(fault) for fault in found), found
    assert not variable.secret or not any("hunter2" in fault for fault in found)


@pytest.mark.parametrize("variable", [row for row in variables() if row.secret], ids=lambda row: row.name)
def test_a_file_that_cannot_be_taken_is_named_and_why(variable: Variable, tmp_path: Path) -> None:
    contents = {"latin": b"\xff", "large": b"x" * 70_000, "empty": b" \n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    file = f"{variable.name}_FILE"
    for name in ("gone", *contents):
        [fault] = faults_of({file: str(tmp_path / name)})
        assert fault.startswith(f"{file} must be the path of a "), fault
    [fault] = faults_of({file: str(tmp_path / "gone"), variable.name: "x"})
    assert fault == f"{variable.name} and {file} are both set; keep one"


COMBINED = [
    {"MKS_SESSION_IDLE_TIMEOUT": "9h"},
    {"MKS_SESSION_WARN_BEFORE": "31m"},
    {"MKS_CANONICAL_HOST": "a.example.com", "MKS_ALLOWED_HOSTS": "b.example.com"},
    {"MKS_SMTP_HOST": "mail.example.com"},
    {"MKS_ALERT_TO": "a@example.com"},
    {"MKS_SMTP_USER": "u"},
    {"MKS_REDIS_URL": "redis://redis.example.com"},
    {"MKS_SLACK_WEBHOOK_URL": "http://hooks.example.com/x"},
    {"MKS_SMTP_HOST": "mail.example.com", "MKS_SMTP_SECURITY": "plain"},
    {"CLOUDFLARE_ZONE_ID": "0"},
    {"MKS_LOG_MAX_BYTES": "1MiB"},
    {"MKS_MAX_BODY_PATHS": "/uploads/=1GB"},
    {"MKS_FORCE_HTTPS": "0"},
    {"MKS_LOG_LEVEL": "DEBUG"},
    {"MKS_TRUSTED_PROXIES": "0.0.0.0/0"},
]
REMEDY = re.compile(
    r"must (contain|begin with|be (one of|a|set together)|not be longer than)|requires|; (set|unset|use|write|name)"
)


def _sentences(source: str, *, made_by: str) -> list[re.Pattern[str]]:
    """The sentences that a module can say, as patterns."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Yield(value=ast.expr() as text) if made_by == "yield":
                found.append(text)
            case ast.Call(func=ast.Attribute(attr="append"), args=[text]) if made_by == "append":
                found.append(text)
    return [re.compile(_pattern(text)) for text in found]


def _pattern(text: ast.expr) -> str:
    if isinstance(text, ast.JoinedStr):
        return "".join(map(_pattern, text.values))
    return re.escape(str(text.value)) if isinstance(text, ast.Constant) else ".+"


def test_every_fault_of_a_combination_is_walked_and_says_what_to_do() -> None:
    said = [fault for environ in COMBINED for fault in faults_of(environ)]
    for fault in said:
        assert re.match(r"MKS_[A-Z]|CLOUDFLARE_", fault), fault
        assert REMEDY.search(fault), fault
    known = _sentences(Path(_cross_checks.__file__).read_text("utf-8"), made_by="yield")
    assert len(known) >= len(COMBINED)
    assert [sentence.pattern for sentence in known if not any(map(sentence.fullmatch, said))] == []


def test_no_fault_of_reading_is_left_out() -> None:
    known = _sentences(Path(reading.__file__).read_text("utf-8"), made_by="append")
    # A wrong value, one that is no text (see test_core_env.py), and the four of a file: the tests above say each.
    assert len(known) == 6
