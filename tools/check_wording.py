"""Check the wording of the English texts: ``python tools/check_wording.py [FILE ...]``.

The rules are ``[[calques]]`` in ``docs/glossary.toml``. They are applied to the pages, the README and its like,
the docstrings and comments of the packages, and the texts of generated pages. Code, literals and quotations are not
checked. If files are named, only these are checked.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/en/**/*.md", "README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/*.md")
SOURCES = ("src/**/*.py", "deploy/src/**/*.py", "examples/**/src/**/*.py", "tools/*.py", "docs/**/*.py")
TEXTS = ("docs/reference.toml",)

# Code blocks of a page; inline code, link targets and quotations.
_FENCE = re.compile(r"^[ ]*(`{3,}).*?^[ ]*\1$", re.DOTALL | re.MULTILINE)
_NO_PROSE = re.compile(r"``[^`]+``|`[^`\n]+`|\]\([^)\s]*\)|\"[^\"\n]*\"|https?://\S+")


@dataclass(frozen=True)
class Rule:
    """A phrase to avoid.

    Args:
        pattern: what it looks like.
        write: what to write instead.
        example: a text that the rule rejects.
    """

    pattern: re.Pattern[str]
    write: str
    example: str


def rules(text: str) -> list[Rule]:
    """Return the rules of a glossary."""
    return [
        Rule(
            re.compile(rf"(?<![\w-])(?:{rule['pattern']})(?![\w-])", re.MULTILINE),
            rule["write"],
            rule["example"],
        )
        for rule in tomllib.loads(text)["calques"]
    ]


def errors(text: str, known: Iterable[Rule]) -> Iterator[tuple[int, str]]:
    """Yield the phrases to avoid in a text, each with its line number and what to write.

    A phrase may continue on the next line; code and quotations are blanked out.
    """
    prose = _NO_PROSE.sub(_blank, _FENCE.sub(_blank, text))
    # A line break inside a sentence is a space, an empty line ends the sentence.
    flat = re.sub(r"(?<!\n)\n(?=[ ]*[^\s])", " ", prose)
    for rule in known:
        for found in rule.pattern.finditer(flat):
            # Each replaced line break has kept its position.
            yield text.count("\n", 0, found.start()) + 1, f"{found[0].strip()!r}: {rule.write}"


def _blank(found: re.Match[str]) -> str:
    """Keep positions and line numbers, and end no sentence."""
    return re.sub(r"[^\n]", "x", found[0])


def prose_of_source(source: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and the comments of a module, each with the number of its first line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text), lineno=line)):
                yield line, text
            case _:
                pass
    first, block = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] == first + len(block):
            block.append(token.string.lstrip("# "))
        else:
            yield first, "\n".join(block)
            first, block = token.start[0], [token.string.lstrip("# ")]
    yield first, "\n".join(block)


def files() -> Iterator[Path]:
    """Return the files with English texts; pages made from docstrings are checked in their sources."""
    for pattern in (*PAGES, *SOURCES, *TEXTS):
        for file in sorted(ROOT.glob(pattern)):
            if "reference" not in file.parts or "overview" in file.parts or file.name == "refusals.md":
                yield file


def check(file: Path, known: list[Rule]) -> Iterator[str]:
    """Yield the errors of a file, one sentence each."""
    text = file.read_text("utf-8")
    parts = prose_of_source(text) if file.suffix == ".py" else [(1, text)]
    for first, part in parts:
        for line, error in errors(part, known):
            yield f"{file.relative_to(ROOT)}:{first + line - 1}: {error}"


def main() -> None:
    """Check all files, or the named ones."""
    known = rules((ROOT / "docs" / "glossary.toml").read_text("utf-8"))
    named = [Path(name).resolve() for name in sys.argv[1:]]
    found = [error for file in named or files() for error in check(file, known)]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
