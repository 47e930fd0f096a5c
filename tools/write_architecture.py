"""Generate the lists of docs/explanation/architecture.md and both pictures from the code.

With --check: list what is not up to date, and change nothing.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

from mks_hardening._core.web.wsgi_stack import wrappers_inside

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mks_hardening"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
IMPORTS = PAGE.with_name("import_map.svg")
WRAPPERS = PAGE.with_name("wrappers.svg")


def main() -> None:
    """Write the files, or check them."""
    wanted = {
        PAGE: filled(PAGE.read_text(encoding="utf-8")),
        IMPORTS: picture(
            layers(),
            label="Each layer may import those below it; modules of one layer do not know each other.",
        ),
        WRAPPERS: picture(
            [["server"], *([name] for name in wrappers()), ["your application"]],
            label="From the server to the application: each wrapper sees what those outside of it have decided.",
        ),
    }
    stale = [
        file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is not up to date: make generated")
        sys.exit(bool(stale))
    for file in stale:
        file.write_text(wanted[file], encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with the text between its markers regenerated."""
    made = {"modules": modules(), "keys": keys(), "packages": packages()}
    return re.sub(
        r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{made[found[2]]}{found[3]}",
        page,
        flags=re.DOTALL,
    )


# --- parts


def modules() -> str:
    """Return every package with the first line of its docstring, and its modules."""
    return "".join(
        f"{line}\n" for folder in sorted(PACKAGE.rglob("__init__.py")) for line in _package(folder.parent)
    )


def _package(folder: Path) -> Iterator[str]:
    path = folder.relative_to(PACKAGE)
    if path == Path():
        return
    summary = _docstring(folder / "__init__.py").partition("\n")[0]
    names = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    yield f"{'  ' * (len(path.parts) - 1)}- **`{path}/`** {summary}"
    if names:
        yield f"{'  ' * len(path.parts)}<br>{' '.join(f'`{name}`' for name in names)}"


def keys() -> str:
    """Return the keys of the environ and their meaning."""
    body = ast.parse((PACKAGE / "_core" / "web" / "environ_keys.py").read_text(encoding="utf-8")).body
    lines = ["| key | what stands there |\n|---|---|\n"]
    for statement, meaning in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(meaning, ast.Expr):
            text = " ".join(ast.literal_eval(meaning.value).replace("``", "`").split())
            lines.append(f"| `{ast.literal_eval(statement.value)}` | {text} |\n")
    return "".join(lines)


def packages() -> str:
    """Return which module imports which third-party package."""
    contract = next(item for item in _contracts() if item["id"] == "third-party")
    pairs = sorted(line.split(" -> ")[::-1] for line in contract["ignore_imports"])
    rows = [f"| {package} | `{module.removeprefix('mks_hardening.')}` |\n" for package, module in pairs]
    return "".join(["| package | imported by |\n|---|---|\n", *rows])


def layers() -> list[list[str]]:
    """Return the layers of the import contract from top to bottom; missing packages are skipped."""
    contract = next(item for item in _contracts() if item["id"] == "layers")
    split = [[name.strip() for name in re.split(r"[|:]", layer)] for layer in contract["layers"]]
    present = [[name for name in layer if not name.startswith("(")] for layer in split]
    return [layer for layer in present if layer]


def wrappers() -> list[str]:
    """Return the wrappers from the outside in, read from the composed stack."""
    from mks_hardening.compose import harden_wsgi
    from mks_hardening.security import RateLimiter
    from mks_hardening.settings import HardeningSettings
    from mks_hardening.wsgi import CacheRule, RateLimitRule

    def app(_: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    stack = harden_wsgi(
        app,
        HardeningSettings.from_env(
            environ={
                "MKS_ALLOWED_HOSTS": "localhost",
                "MKS_CORS_ORIGINS": "https://app.example.com",
                "MKS_MAINTENANCE_FILE": "maintenance",
                "MKS_BANS": "1",
                "MKS_MAX_BODY": "1MiB",
                "MKS_MAX_REQUESTS": "100",
                "MKS_REQUEST_TIMEOUT": "30s",
                "MKS_COOKIE_POLICY": "enforce",
            }
        ),
        limiter=RateLimiter({"all": "1 per second"}),
        rate_limits=[RateLimitRule("all")],
        cache_rules=[CacheRule("/*", ttl=1)],
    )
    names = [type(found).__name__ for found in wrappers_inside(stack)]
    return [name for name in names if name.endswith("Middleware")]


def _contracts() -> list[dict[str, list[str]]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, list[str]]] = project["tool"]["importlinter"]["contracts"]
    return contracts


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


# --- the picture


def picture(rows: list[list[str]], *, label: str) -> str:
    """Draw rows of boxes with arrows from each to the next."""
    width, box, gap = 760, 44, 26
    height = len(rows) * (box + gap) + gap
    shapes = [_row(row, gap + index * (box + gap), width, box) for index, row in enumerate(rows)]
    arrows = [_arrow(width / 2, gap + index * (box + gap) + box, gap) for index in range(len(rows) - 1)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">\n'
        "<style>rect{fill:#eef2f6;stroke:#5b6b7c}text{font:15px monospace;fill:#1c2733;text-anchor:middle}"
        "path{stroke:#5b6b7c;fill:none;marker-end:url(#head)}</style>\n"
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<polygon points="0 0 8 4 0 8" fill="#5b6b7c"/></marker>\n'
        + "\n".join([*shapes, *arrows])
        + "\n</svg>\n"
    )


def _row(names: list[str], top: float, width: int, height: int) -> str:
    share = (width - 20) / len(names)
    return "\n".join(
        f'<rect x="{10 + share * place + 4:.0f}" y="{top:.0f}" width="{share - 8:.0f}" height="{height}" rx="6"/>'
        f'<text x="{10 + share * (place + 0.5):.0f}" y="{top + height / 2 + 5:.0f}">{escape(name)}</text>'
        for place, name in enumerate(names)
    )


def _arrow(x: float, top: float, length: float) -> str:
    return f'<path d="M{x:.0f} {top:.0f} v{length - 3:.0f}"/>'


if __name__ == "__main__":
    main()
