"""Draw docs/pictures/*.dot in both languages with Graphviz: ``python tools/draw_pictures.py``.

Needs the program ``dot`` (Debian: ``apt-get install graphviz``). Each SVG file carries the digest of its source, so
that a test notices a picture that was not drawn again. On a page of the documentation the pictures use the colours
of its theme, elsewhere those of the reader's system.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCES = DOCS / "pictures"
LANGUAGES = ("en", "ja")
# Measured with a font that has Japanese characters, shown with the fonts of the page.
_LOOK = """
  graph [bgcolor=transparent fontname="Noto Sans CJK JP" fontsize=13 nodesep=0.35 ranksep=0.45]
  node [shape=box style=rounded fontname="Noto Sans CJK JP" fontsize=13 margin="0.16,0.08"]
  edge [fontname="Noto Sans CJK JP" fontsize=11 arrowsize=0.7]
"""
_STYLE = """<style>
.diagram{--ink:var(--color-foreground-primary,#1c2733);--line:var(--color-foreground-muted,#5b6b7c);
--box:var(--color-background-secondary,#f3f6f9);max-width:100%;height:auto}
@media (prefers-color-scheme:dark){.diagram{--ink:var(--color-foreground-primary,#d8dee6);
--line:var(--color-foreground-muted,#8b98a5);--box:var(--color-background-secondary,#1e252c)}}
.diagram text{fill:var(--ink);font-family:system-ui,"Noto Sans CJK JP",sans-serif}
.diagram .node :is(path,polygon,ellipse){fill:var(--box);stroke:var(--line)}
.diagram .cluster :is(path,polygon){fill:none;stroke:var(--line);stroke-dasharray:4 3}
.diagram .edge path{stroke:var(--line);fill:none}.diagram .edge polygon{fill:var(--line);stroke:var(--line)}
.diagram .good :is(path,polygon){stroke:#2f8f4e;stroke-width:2}
.diagram .bad :is(path,polygon){stroke:#c8443c;stroke-width:2}
</style>"""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def main() -> None:
    """Draw the pictures that are out of date."""
    stale = [
        (source, language)
        for source in sorted(SOURCES.glob("*.dot"))
        for language in LANGUAGES
        if not is_current(source, language)
    ]
    program = shutil.which("dot")
    if stale and program is None:
        sys.exit("The program dot is missing: apt-get install graphviz")
    for source, language in stale:
        picture_of(source, language).write_text(draw(source, language, str(program)), encoding="utf-8")


def picture_of(source: Path, language: str) -> Path:
    """Return the file of a picture."""
    return DOCS / language / "pictures" / f"{source.stem}.svg"


def is_current(source: Path, language: str) -> bool:
    """Return whether the picture was drawn from the present source."""
    picture = picture_of(source, language)
    return picture.exists() and f"<!-- {digest(source, language)} -->" in picture.read_text(encoding="utf-8")


def digest(source: Path, language: str) -> str:
    """Return the digest of everything that the picture depends on."""
    return hashlib.sha256(f"{translated(source, language)}{_LOOK}{_STYLE}".encode()).hexdigest()[:12]


def translated(source: Path, language: str) -> str:
    """Return the source with the texts of a language.

    Raises:
        SystemExit: a translation is listed that the picture does not contain.
    """
    text = source.read_text(encoding="utf-8")
    if language == "en":
        return text
    texts = tomllib.loads((SOURCES / f"{language}.toml").read_text(encoding="utf-8"))[source.stem]
    words = {english.replace("\n", "\\n"): word.replace("\n", "\\n") for english, word in texts.items()}
    if unused := words.keys() - set(_QUOTED.findall(text)):
        sys.exit(f"{source.name} does not contain: {', '.join(sorted(unused))}")
    return _QUOTED.sub(lambda found: f'"{words.get(found[1], found[1])}"', text)


def draw(source: Path, language: str, program: str) -> str:
    """Return the picture as SVG, drawn by ``dot``, with its title as description for screen readers."""
    text = translated(source, language)
    head, brace, body = text.partition("{")
    done = subprocess.run(
        [program, "-Tsvg"], input=f"{head}{brace}{_LOOK}{body}", capture_output=True, text=True, check=True
    )
    title = _QUOTED.search(head)
    label = escape(title[1] if title else source.stem, quote=True)
    svg = done.stdout[done.stdout.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?|<title>.*?</title>\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:fill|stroke|font-family)="[^"]*"', "", svg)
    width, height = re.findall(r'(?:width|height)="(\d+)pt"', svg)[:2]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" role="img" aria-label="{label}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    )
    svg = re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL)
    return svg.replace(head, f"{head}\n<!-- {digest(source, language)} -->\n{_STYLE}", 1)


if __name__ == "__main__":
    main()
