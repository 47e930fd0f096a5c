"""Check that the Japanese pages match the English ones: ``python tools/check_translation.py [--stamp FILE ...]``.

A Japanese page has the same headings (level, anchor and order), the same code blocks except for comments, and the
same links as the English page. Below each heading it has the digest of the English section that it was
translated from. ``--stamp`` writes the current digests after a translation; it records that the translation was
reviewed, not that it is correct.

Every heading of level 2 and below has an explicit anchor, so that links work whatever its translation is.
``docs/glossary.toml`` lists the words that are never translated, the one Japanese word for each other term, and the
words to avoid. Where an English page uses a term, the Japanese page must use its word; no Japanese page and no
Japanese text of the example may use a word to avoid.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# The pages of this folder are generated in both languages, except these and their hand-written parts.
GENERATED = "reference"
WRITTEN = {"refusals.md"}
PARTS = "overview"

# Code, and directives without prose; prose is between colons, and is translated.
_FENCE = re.compile(r"^(`{3,})")
_HEADING = re.compile(r"^(#{1,6}) ")
_ANCHOR = re.compile(r"^\(([\w.-]+)\)=$")
_LINK = re.compile(r"\]\(([^)\s]+)\)|\{(?:doc|ref|py:\w+)\}`(?:[^`<]*<)?([^`>]+)>?`")
# Links from one language to the other.
_SWITCH = re.compile(r"README(\.ja)?\.md$")
# Names in code, and link targets.
_NO_PROSE = re.compile(r"`[^`]*`|\]\([^)]*\)")
_COMMENT = re.compile(r"[ ]*#.*$", re.MULTILINE)
_STAMP = re.compile(r"^<!-- en: ([0-9a-f]{12}) -->$")


@dataclass
class Section:
    """A section of a page: from one heading to the next."""

    level: int
    anchor: str
    lines: list[str] = field(default_factory=list)
    fences: list[str] = field(default_factory=list)
    stamp: str = ""

    @property
    def prose(self) -> str:
        """Return the text to translate."""
        return "\n".join(self.lines)

    def links(self) -> list[str]:
        """Return the link targets of the section, sorted."""
        found = (first or second for first, second in _LINK.findall(self.prose))
        return sorted(target.replace("docs/ja/", "docs/en/") for target in found if not _SWITCH.match(target))

    def digest(self) -> str:
        """Return the digest of text and code blocks, normalized to one Unicode form, without trailing blanks."""
        text = "\n".join(line.rstrip() for line in [*self.lines, *self.fences]).strip()
        return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest()[:12]


def sections(text: str) -> list[Section]:
    """Split a page at its headings; code blocks are never split."""
    found = [Section(0, "")]
    anchor, closing, fence = "", "", list[str]()
    for line in text.splitlines():
        if closing:
            fence.append(line)
            if line.strip() == closing:
                found[-1].fences.append("\n".join(fence))
                closing, fence = "", []
        elif mark := _FENCE.match(line):
            closing, fence = mark[1], [line]
        elif target := _ANCHOR.match(line):
            anchor = target[1]
        elif heading := _HEADING.match(line):
            found.append(Section(len(heading[1]), anchor, [line]))
            anchor = ""
        elif stamp := _STAMP.match(line):
            found[-1].stamp = stamp[1]
        else:
            found[-1].lines.append(line)
    return found


def errors(english: str, japanese: str, *, terms: list[str], anchors: bool = True) -> Iterator[str]:
    """Yield the errors of a Japanese page, one sentence each.

    Args:
        english: the source.
        japanese: the translation.
        terms: words that stay as they are.
        anchors: whether headings need one; package pages and code hosts do not know the form.
    """
    theirs, ours = sections(english), sections(japanese)
    if [(part.level, part.anchor) for part in theirs] != [(part.level, part.anchor) for part in ours]:
        yield (
            "headings differ: "
            f"{[f'{part.level} {part.anchor}' for part in theirs]} in English, "
            f"{[f'{part.level} {part.anchor}' for part in ours]} here"
        )
        return
    for source, part in zip(theirs, ours, strict=True):
        name = source.anchor or (source.lines[0].strip("# ") if source.level else "before the title")
        if anchors and source.level > 1 and not source.anchor:
            yield f"{source.lines[0]!r} needs an anchor above it"
        if [*map(_without_comments, source.fences)] != [*map(_without_comments, part.fences)]:
            yield f"{name}: code differs"
        if source.links() != part.links():
            yield f"{name}: links differ: {source.links()} in English, {part.links()} here"
        for term in terms:
            if _uses(source.prose, term) and not _uses(part.prose, term):
                yield f"{name}: {term!r} is not to be translated"
        if source.level and source.digest() != part.stamp:
            yield f"{name}: translated from another text ({part.stamp or 'no stamp'}, now {source.digest()})"


def _without_comments(fence: str) -> str:
    """Return a code block without its comments, which are translated: Python and commands."""
    return _COMMENT.sub("", fence) if fence.startswith(("```python", "```console")) else fence


def wording(english: str, japanese: str, words: Mapping[str, str]) -> Iterator[str]:
    """Yield the terms of the English page whose Japanese word is missing from the Japanese page."""
    source = _NO_PROSE.sub("", "\n".join(part.prose for part in sections(english))).lower()
    text = "\n".join(part.prose for part in sections(japanese))
    for term, word in words.items():
        if (_uses(source, term) or _uses(source, f"{term}s")) and word not in text:
            yield f"{term!r} is called {word!r} here"


def avoided(text: str, words: Mapping[str, str]) -> Iterator[str]:
    """Yield the words to avoid in a Japanese text, each with the word to use, one sentence each.

    A word followed by a long vowel mark is a different word: サーバ is to be avoided, サーバー is not.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        for other, word in words.items():
            if re.search(rf"{re.escape(other)}(?!ー)", line):
                yield f"line {number}: {other!r} is called {word!r}"


def _uses(text: str, term: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", text, re.ASCII) is not None


def stamped(english: str, japanese: str) -> str:
    """Return the Japanese page with the current digests."""
    digests = [part.digest() for part in sections(english) if part.level]
    lines: list[str] = []
    inside = ""
    for line in japanese.splitlines():
        mark = _FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif mark:
            inside = mark[1]
        elif _STAMP.match(line):
            continue
        lines.append(line)
        if not inside and _HEADING.match(line):
            lines.append(f"<!-- en: {digests.pop(0)} -->")
    return "\n".join(lines) + "\n"


def pages(language: str) -> set[str]:
    """Return the hand-written pages of a language."""
    folder = DOCS / language
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*.md")
        if file.relative_to(folder).parts[0] != GENERATED or file.name in WRITTEN or file.parent.name == PARTS
    }


def japanese_texts() -> Iterator[Path]:
    """Return the Japanese pages, and the files of the example that contain texts for users."""
    yield ROOT / "README.ja.md"
    yield from (DOCS / "ja" / name for name in sorted(pages("ja")))
    example = ROOT / "examples" / "knowledge_system" / "src" / "knowledge_system"
    yield from sorted(
        file
        for kind in (
            "content/*.json",
            "content/english/*.toml",
            "content/handbook/ja/*.md",
            "templates/*.html",
        )
        for file in example.glob(kind)
    )


def main() -> None:
    """Check all pages, or stamp the named ones."""
    if "--stamp" in sys.argv[1:]:
        for name in sys.argv[sys.argv.index("--stamp") + 1 :]:
            file = Path(name).resolve()
            source = (
                ROOT / "README.md" if file.parent == ROOT else DOCS / "en" / file.relative_to(DOCS / "ja")
            )
            file.write_text(stamped(source.read_text("utf-8"), file.read_text("utf-8")), encoding="utf-8")
        return
    glossary = tomllib.loads((DOCS / "glossary.toml").read_text("utf-8"))
    found = [f"{name}: only in one language" for name in sorted(pages("en") ^ pages("ja"))]
    both = [(DOCS / "en" / name, DOCS / "ja" / name) for name in sorted(pages("en") & pages("ja"))]
    both.append((ROOT / "README.md", ROOT / "README.ja.md"))
    for english, japanese in both:
        texts = english.read_text("utf-8"), japanese.read_text("utf-8")
        found += [
            f"{japanese.relative_to(ROOT)}: {error}"
            for error in (
                *errors(*texts, terms=glossary["never_translated"], anchors=english.parent != ROOT),
                *wording(*texts, glossary["terms"]),
            )
        ]
    for file in japanese_texts():
        found += [
            f"{file.relative_to(ROOT)}: {error}"
            for error in avoided(file.read_text("utf-8"), glossary["avoided"])
        ]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
