"""Execution of documentation pages as a reader would: write files, run commands, compare the output.

A ``literalinclude`` with a caption is the file of that name. In a ``console`` fence a line that begins with ``$``
is typed into a shell; the lines below it are what must come out, where ``...`` stands for anything. A command that
ends with ``&`` goes on until the end of the page. An address between ``<`` and ``>`` is opened in a browser.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command", "File", "Visit", "follow", "steps"]

from testbed.polling import free_port

_STEP = re.compile(
    r"^```(console|\{literalinclude\} (\S+))\n(.*?)^```$|<(http://localhost[^>]*)>", re.DOTALL | re.MULTILINE
)
_CAPTION = re.compile(r"^:caption: (\S+)$", re.MULTILINE)
_PORT = "8000"
_LOOKS = 100


@dataclass(frozen=True)
class File:
    """A file that the reader saves."""

    name: str
    source: Path


@dataclass(frozen=True)
class Command:
    """A command and its expected output."""

    line: str
    output: str


@dataclass(frozen=True)
class Visit:
    """An address that the reader opens in a browser."""

    url: str


def steps(page: Path) -> Iterator[File | Command | Visit]:
    """Yield the steps of a page, in order."""
    for kind, target, body, url in _STEP.findall(page.read_text("utf-8")):
        if url:
            yield Visit(url)
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                while line.endswith("\\"):
                    more, _, output = output.partition("\n")
                    line = f"{line}\n{more}"
                yield Command(line, output.rstrip("\n"))
        elif caption := _CAPTION.search(body):
            yield File(caption[1], (page.parent / target).resolve())


def follow(
    page: Path,
    folder: Path,
    *,
    environment: Mapping[str, str],
    skip: re.Pattern[str] | None = None,
    visit: Callable[[str], None] | None = None,
) -> None:
    """Execute the steps of a page in a directory; port 8000 is replaced by a free one.

    Args:
        page: the page.
        folder: where the reader stands.
        environment: of the commands.
        skip: commands that are left out.
        visit: opens an address in a browser; left out when there is none.

    Raises:
        AssertionError: a command failed, or something else came out.
    """
    port = str(free_port())
    running: list[subprocess.Popen[str]] = []
    try:
        for step in steps(page):
            if isinstance(step, File):
                target = folder / step.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(step.source, target)
                target.write_text(target.read_text("utf-8").replace(_PORT, port), encoding="utf-8")
            elif isinstance(step, Visit):
                if visit is not None:
                    visit(step.url.replace(_PORT, port))
            elif skip is None or not skip.match(step.line):
                _type(step, folder, port, environment, running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)


def _type(
    step: Command,
    folder: Path,
    port: str,
    environment: Mapping[str, str],
    running: list[subprocess.Popen[str]],
) -> None:
    line = step.line.replace(_PORT, port)
    if line.endswith("&"):
        command = line.removesuffix("&").strip()
        running.append(
            subprocess.Popen(["bash", "-c", f"exec env {command}"], cwd=folder, env=environment, text=True)
        )
        _wait_for(int(port), running[-1])
        return
    wanted = ".*".join(map(re.escape, step.output.split("...")))
    # A record is written after its answer has arrived; nobody types the next command as fast as this.
    for _ in range(_LOOKS if line.startswith(("tail ", "grep ")) else 1):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        shown = done.stdout.rstrip().replace(port, _PORT)
        as_written = not step.output or re.fullmatch(wanted, shown, re.DOTALL)
        if as_written:
            break
        time.sleep(0.05)
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    assert as_written, f"{line}\n--- wanted\n{step.output}\n--- came\n{shown}"


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        with socket.socket() as client:
            client.settimeout(1)
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nobody listens")
