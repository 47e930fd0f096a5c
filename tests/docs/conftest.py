"""Both languages of the documentation, built strictly and served on loopback, and a browser to look at them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@pytest.fixture(scope="session")
def built_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with ``en`` and ``ja``, as ``make docs`` makes them: one worker builds, the others wait for it.

    ``BUILT_DOCS`` names what ``make docs`` has just made in the same run.
    """
    if built := os.environ.get("BUILT_DOCS"):
        return Path(built)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built-docs"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "site").exists():
            _build(folder)
    return folder / "site"


def _build(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pictures = Path("examples/knowledge_system/pictures")
    if (DOCS.parent / pictures).is_dir():
        shutil.copytree(DOCS.parent / pictures, folder / pictures)
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("*.mo", "__pycache__"))
    for language in ("en", "ja"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-c", str(folder / "docs")),
                *("-d", str(folder / "cache" / language), "-D", f"language={language}"),
                *(str(folder / "docs" / language), str(folder / "new" / language)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    (folder / "new").rename(folder / "site")


@pytest.fixture(scope="session")
def served_docs(built_docs: Path) -> Iterator[str]:
    """Where both languages are served."""
    handler = partial(Quiet, directory=str(built_docs))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Any]:
    """A Chromium with a fresh profile for each context."""
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        yield browser
