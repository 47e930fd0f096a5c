"""Check that a target is an application: its own interpreter imports it, in a separate process with a time limit.

The process may open no network connection: an import that needs one fails on a host whose servers are not up yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ImportResult", "check_import", "find_interpreter"]

_CODE: Final = """
import importlib, inspect, json, os, sys

answer, target, *roots = sys.argv[1:]
# The application may write to both; only the last line of its errors is shown.
sys.path[:0] = roots

def no_network(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else "x"
        if not isinstance(address, (str, bytes)) or event != "socket.connect":
            raise PermissionError("the import opens a network connection")

sys.addaudithook(no_network)
module, _, name = target.partition(":")
found = getattr(importlib.import_module(module), name.removesuffix("()"))
if name.endswith("()"):
    found = found()
if not callable(found):
    raise TypeError(target + " is " + type(found).__name__ + ", which cannot be called")

def kind_of(found):
    function = found if inspect.isroutine(found) else type(found).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(found):
        return "asgi"
    known = {base.__module__.partition(".")[0] for base in type(found).__mro__}
    if known & {"fastapi", "starlette", "quart", "litestar"}:
        return "asgi"
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return ""
    needed = [each for each in parameters if each.default is each.empty and each.kind <= each.POSITIONAL_OR_KEYWORD]
    return {2: "wsgi", 3: "asgi"}.get(len(needed), "")

with open(answer, "w", encoding="utf-8") as stream:
    json.dump({"kind": kind_of(found), "type": type(found).__module__ + "." + type(found).__qualname__,
               "hardened": any(name.partition(".")[0] == "mks_hardening" for name in sys.modules)}, stream)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import found out.

    Attributes:
        kind: ``wsgi`` or ``asgi``; empty if the import failed, or if the object is neither.
        type: class of the application.
        hardened: whether the import loaded ``mks_hardening``.
        error: why it failed; empty if it did not.
    """

    kind: str = ""
    type: str = ""
    hardened: bool = False
    error: str = ""


def find_interpreter(folder: Path, *, here: str) -> str:
    """Return the interpreter of a project's virtual environment, or ``here`` if it has none."""
    places = [folder / name / "bin" / "python" for name in (".venv", "venv", "env")]
    return next((str(place) for place in places if place.exists()), here)


def check_import(
    target: str, *, folder: Path, roots: Sequence[Path], python: str, limit: float = 30.0
) -> ImportResult:
    """Import a target as a server would, and call it if it is a function that makes the application.

    Args:
        target: ``module:object`` or ``module:function()``.
        folder: working directory.
        roots: folders to import from.
        python: interpreter of the project.
        limit: seconds until the process and all that it started are ended.
    """
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "answer.json"
        words = [python, "-c", _CODE, str(answer), target, *map(str, roots)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            process = subprocess.Popen(  # noqa: S603 - the interpreter that the operator named, no shell
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return ImportResult(error=f"{python}: {error.strerror}")
        with process:
            try:
                _, said = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                said = f"the import took longer than {limit:g} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if not answer.is_file():
            lines = [line for line in said.splitlines() if line.strip()]
            return ImportResult(
                error=lines[-1][:300] if lines else f"the interpreter ended with {process.returncode}"
            )
        result = json.loads(answer.read_text(encoding="utf-8"))
        return ImportResult(str(result["kind"]), str(result["type"]), bool(result["hardened"]))
