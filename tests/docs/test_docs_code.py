"""Every block of code on a page is a file of docs/snippets that is executed, or a console block, which is too."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from testbed import doc_pages, package_map
from testbed.run_python import run_python

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "docs" / "en"
SNIPPETS = ROOT / "docs" / "snippets"
PAGES = [*sorted(ENGLISH.rglob("*.md")), ROOT / "README.md"]
FENCE = re.compile(r"^(`{3,}|:{3,})(\{?[\w-]*\}?)[ ]?(\S*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
# No code: lists of pages, what a tool makes, boxes of prose.
NO_CODE = {
    "{toctree}",
    "{raw}",
    "{eval-rst}",
    "{include}",
    "{note}",
    "{tip}",
    "{warning}",
    "{important}",
    "{tab-set}",
}
# Who else executes the code of a page.
ELSEWHERE = {
    "asgi-frameworks.md": {"python"},  # two lines for applications of the reader: the same
    "flask-and-django.md": {"python"},  # lines out of whole programs: tests/docs/test_docs_frameworks.py
    "control-requests.md": {"sh"},  # commands for a Redis of the reader: tests/integration/_edge
    "own-application.md": {
        "sh"
    },  # typed on a machine of its own: deploy/tests/test_deploy_own_application.py
    "backups-elsewhere.md": {"sh", "toml"},  # parsed and done: deploy/tests/test_deploy_offsite.py
    "several-hosts.md": {"sh", "toml"},  # parsed, and done by other tests: deploy/tests/test_deploy_hosts.py
    "database-standby.md": {"sh", "toml"},  # as well
    "staging.md": {"sh", "toml"},  # parsed and done: deploy/tests/test_deploy_masking.py
    "ship-logs.md": {"sh", "toml"},  # parsed and done: deploy/tests/test_deploy_logs.py
    "capacity.md": {"sh", "toml"},  # run and read: deploy/tests/test_deploy_capacity.py
    "accept-a-site.md": {"sh"},  # parsed and done: deploy/tests/test_deploy_accept.py
    "content-security-policy.md": {"toml"},  # read: tests/unit/wsgi/headers/test_wsgi_header_rules.py
    "what-browsers-get.md": {"toml"},  # parsed: deploy/tests/test_deploy_render.py
    "releases.md": {"sh", "toml"},  # parsed, and done by other tests: deploy/tests/test_deploy_release.py
    "deploy.md": {"sh"},  # what make verify-deploy does on a host of its own
    "deployment-secrets.md": {"sh"},  # parsed and done: deploy/tests/test_deploy_sealed_secrets.py
    "run-in-containers.md": {"sh", "toml"},  # parsed, and done by others: deploy/tests/test_deploy_images.py
    "compatibility.md": {"toml", "ini"},  # what each application gets: tests/compatibility
    # Each command against the rendered deployment: deploy/tests; one shows settings.
    "runbooks": {"sh", ""},
}

pytestmark = pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")


def _fences(page: Path) -> list[tuple[str, str, str]]:
    return [(kind, argument, body) for _, kind, argument, body in FENCE.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_executed(page: Path) -> None:
    code = [text.read_text("utf-8") for text in SNIPPETS.rglob("*.py")]
    elsewhere = ELSEWHERE.get(page.name, set()) | ELSEWHERE.get(page.parent.name, set())
    for kind, argument, body in _fences(page):
        if kind == "{literalinclude}":
            assert SNIPPETS in (page.parent / argument).resolve().parents, argument
        elif kind == "python" and "python" not in elsewhere:
            assert any(body.strip() in text for text in code), f"no snippet holds\n{body}"
        elif kind == "console" and page.is_relative_to(ENGLISH):
            commands = [step for step in doc_pages.steps(page) if isinstance(step, doc_pages.Command)]
            assert any(body.startswith(f"$ {command.line}") for command in commands), body
        else:
            assert kind in {*NO_CODE, "console", *elsewhere}, f"{kind!r}: {body}"


ALONE = [
    "after_commit.py",
    "cache_transaction.py",
    "client_report.py",
    "outgoing_calls.py",
    "read_replicas.py",
    "repeat_transactions.py",
    "response_cache.py",
    "transaction_pooling.py",
]


@pytest.mark.parametrize("name", ALONE)
def test_a_program_that_asserts_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """In a process of its own, because a program leaves the connections of its engines open."""
    done = run_python((SNIPPETS / name).read_text("utf-8"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


OVERVIEWS = sorted((SNIPPETS / "overview").glob("*.py"))


@pytest.mark.parametrize("snippet", OVERVIEWS, ids=lambda file: file.stem)
def test_the_smallest_example_of_an_area_runs_in_an_empty_folder(snippet: Path, tmp_path: Path) -> None:
    """In a process of its own, because some of them set up logging."""
    assert run_python(snippet.read_text("utf-8"), cwd=tmp_path).stderr == ""


@pytest.mark.parametrize("area", package_map.AREAS)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_reference_of_an_area_begins_with_an_overview(area: str, language: str) -> None:
    folder = ROOT / "docs" / language / "reference"
    page = (folder / "api" / f"{area}.md").read_text("utf-8")
    parts = [
        f"../overview/{area}.md",
        f"(overview-{area}-defaults)=",
        f"(overview-{area}-names)=",
        ".. automodule::",
    ]
    places = [page.find(part) for part in parts]
    assert places == sorted(places)
    assert places[0] > 0
    text = (folder / "overview" / f"{area}.md").read_text("utf-8")
    assert re.findall(r"^\((.+)\)=$", text, re.MULTILINE) == [
        f"overview-{area}-{part}" for part in ("which", "example", "outage", "limits")
    ]


@cache
def _other_tests() -> str:
    """The source of all tests but these."""
    files = [file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)]
    return "".join(file.read_text("utf-8") for file in files)


@pytest.mark.parametrize("snippet", sorted(SNIPPETS.rglob("*.py")), ids=lambda file: file.name)
def test_every_snippet_is_executed(snippet: Path) -> None:
    """A page asks for it and starts it, or a test names it or its folder."""
    if snippet.name in ALONE or snippet in OVERVIEWS:
        return
    folder = snippet.parent
    if snippet.name in _other_tests() or (folder != SNIPPETS and f'"{folder.name}"' in _other_tests()):
        return
    for page in ENGLISH.rglob("*.md"):
        steps = [*doc_pages.steps(page)]
        saved = [step.name for step in steps if isinstance(step, doc_pages.File) and step.source == snippet]
        typed = " ".join(step.line for step in steps if isinstance(step, doc_pages.Command))
        if any(Path(name).stem in typed for name in saved):
            return
    pytest.fail(f"nobody executes {snippet.relative_to(ROOT)}")
