"""The page of refusals names every rule that a middleware can refuse a request with, and its status."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = Path("reference/refusals.md")
EDGE = ROOT / "src" / "mks_hardening" / "_edge"

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").exists() or not EDGE.exists(), reason="the documentation is not part of the wheel"
)


def _rules_in_the_code() -> dict[str, int | None]:
    """Return the first two arguments of every refusal; the status of a rule that is computed is ``None``."""
    found: dict[str, int | None] = {}
    for file in EDGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                values = [part.value if isinstance(part, ast.Constant) else None for part in node.args]
                if node.func.id == "RefusalResponse" and isinstance(values[0], str):
                    status = values[1]
                    found[values[0]] = status if isinstance(status, int) else None
                elif node.func.id == "OriginError" and isinstance(values[0], str):
                    found[values[0]] = 403
            elif isinstance(node, ast.Tuple) and len(node.elts) == 4:  # the table of RequestLimits
                first, second = (
                    part.value if isinstance(part, ast.Constant) else None for part in node.elts[:2]
                )
                if isinstance(first, str) and isinstance(second, int):
                    found[first] = second
    return found


def _rules_on(page: Path) -> dict[str, str]:
    """Return the heading above each rule of the page."""
    found: dict[str, str] = {}
    heading = ""
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("## "):
            heading = line
        elif re.match(r"`\w+`: `", line):
            for name in re.findall(r"`(\w+)`", line.partition(":")[2]):
                found[name] = f"{found.get(name, '')} {heading} {line}"
    return found


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_rule_is_on_the_page(language: str) -> None:
    page = _rules_on(ROOT / "docs" / language / PAGE)
    rules = _rules_in_the_code()
    assert len(rules) >= 15
    # "limit" is refused under the name of the limit.
    for rule, status in rules.items():
        if rule != "limit":
            assert rule in page, f"{rule} ({status}) is missing in {language}/{PAGE}"
            assert status is None or str(status) in page[rule], (rule, status)


def test_the_page_names_no_rule_that_does_not_exist() -> None:
    known = {*_rules_in_the_code(), "idle", "absolute", "revoked", "rotated", "store", "error", "backend"}
    assert set(_rules_on(ROOT / "docs" / "en" / PAGE)) <= known
