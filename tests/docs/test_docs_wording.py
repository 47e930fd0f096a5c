"""The check of the English wording: each rule rejects its example, and correct English is accepted."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.toml"

pytestmark = pytest.mark.skipif(not GLOSSARY.exists(), reason="the documentation is not part of the wheel")

# Correct English that resembles a rejected phrase.
ACCEPTED = [
    "Old versions go away.",
    "Other requests are told at once to try again.",
    "Names with a line number are told apart.",
    "Handing over takes over a second.",
    "Years of production use follow.",
    "Anyone who knows the password can sign in.",
    "Who may read a page? Its owner.",
    "An origin that the policy allows to send credentials is trusted.",
    "Use `meanwhile.` and ``anew`` as names.",
    'The log says "the lease is over."',
    "An [example](anew.md) and https://example.com/anew/.",
]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delitem(sys.modules, "check_wording", raising=False)
    return importlib.import_module("check_wording")


def test_each_rule_rejects_its_example_and_accepts_what_it_proposes(tool: ModuleType) -> None:
    known = tool.rules(GLOSSARY.read_text("utf-8"))
    assert len(known) > 20
    for rule in known:
        assert [error.partition(": ")[2] for _, error in tool.errors(rule.example, [rule])] == [rule.write]
        assert [*tool.errors(rule.write, known)] == [], rule.write


@pytest.mark.parametrize("text", ACCEPTED)
def test_correct_english_is_accepted(tool: ModuleType, text: str) -> None:
    assert [*tool.errors(text, tool.rules(GLOSSARY.read_text("utf-8")))] == []


def test_a_phrase_is_found_across_lines_and_named_with_its_line(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs" / "en").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "docs" / "glossary.toml").write_text(GLOSSARY.read_text("utf-8"), encoding="utf-8")
    (tmp_path / "docs" / "en" / "page.md").write_text(
        "# Page\n\n```console\n$ echo the lease is over.\n```\n\nThe limit is\naway.\n\nThe last is over\n",
        "utf-8",
    )
    (tmp_path / "src" / "module.py").write_text(
        '"""Docstring."""\n\nname = "made anew"  # one\n# While it\n# is away, wait.\n\n\ndef f():\n'
        '    """Do.\n\n    Returns:\n        what is made anew.\n    """\n',
        "utf-8",
    )
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_wording"])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    assert ended.value.code
    assert [line.rpartition(": ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "docs/en/page.md:7: 'is away'",
        "docs/en/page.md:10: 'is over'",
        "src/module.py:12: 'anew'",
        "src/module.py:5: 'is away'",
    ]


def test_pages_sources_and_texts_of_generated_pages_are_checked(tool: ModuleType) -> None:
    """``make lint`` checks them."""
    names = {str(file.relative_to(ROOT)) for file in tool.files()}
    assert names >= {
        *("README.md", "docs/en/index.md", "docs/en/reference/refusals.md", "docs/reference.toml"),
        *("src/mks_hardening/compose.py", "tools/check_wording.py"),
    }
    assert "docs/en/reference/defaults.md" not in names
