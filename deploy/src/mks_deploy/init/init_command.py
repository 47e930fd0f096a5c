"""The command ``init``: detect, prompt if necessary, import, and write ``deploy.toml`` once everything is known."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mks_deploy.atomic_files import append_line, replace_file
from mks_deploy.init.candidates import Candidate, find_candidates
from mks_deploy.init.detection import find_facts
from mks_deploy.init.import_check import ImportResult, check_import, find_interpreter
from mks_deploy.init.settings_text import settings_text, site_name
from mks_deploy.init.source_tree import SourceTree
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings

__all__ = ["InitError", "Wanted", "ignore_generated", "new_settings", "write_new"]

_LOCKS: Final = (
    "requirements.txt",
    "requirements.lock",
    "requirements/prod.txt",
    "requirements/production.txt",
)
_IGNORED: Final = ("/secrets/", "/out/", ".env")
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(\(\))?", re.ASCII)


class InitError(ValueError):
    """A required value is unknown; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Options from the command line.

    Attributes:
        folder: source tree of the application.
        target: ``module:object``; empty to detect it.
        name: name of the site; empty to derive it.
        hosts: host names of the site; empty to prompt.
        mail: address of alerts; empty to prompt.
        python: interpreter of the project; empty to find it.
        proven: whether the target is imported.
    """

    folder: Path
    target: str = ""
    name: str = ""
    hosts: tuple[str, ...] = ()
    mail: str = ""
    python: str = ""
    proven: bool = True


def new_settings(wanted: Wanted, *, ask: Callable[[str], str] | None) -> str:
    """Return the text of a ``deploy.toml`` that is valid.

    Args:
        wanted: options from the command line.
        ask: prompts and returns the answer; ``None`` if there is no terminal.

    Raises:
        InitError: a value is missing or ambiguous without a terminal, or the application cannot be imported.
    """
    if not wanted.folder.is_dir():
        raise InitError(f"{wanted.folder} is no folder")
    tree = SourceTree(wanted.folder)
    candidate = _chosen(tree, wanted.target, ask)
    imported = _imported(candidate, tree, wanted) if wanted.proven else None
    if not candidate.kind and not (imported and imported.kind):
        raise InitError(f"whether {candidate.target} is WSGI or ASGI is unknown without importing it")
    hosts = wanted.hosts or tuple(
        _answer("Names that are answered, the canonical one first", "--host", ask).split()
    )
    mail = wanted.mail or _answer("Address that gets alerts and the provider's mail", "--mail", ask)
    project = tree.project.get("project", {})
    name = wanted.name or site_name(str(project.get("name", tree.folder.name)))
    lock = next((name for name in _LOCKS if (tree.folder / name).is_file()), "")
    facts = tuple(find_facts(tree, candidate))
    text = settings_text(candidate, imported, facts, name=name, hosts=hosts, mail=mail, requirements=lock)
    try:
        read_settings(text)
    except DeploySettingsError as error:
        # Invalid input, such as a host name.
        raise InitError("\n".join(error.errors)) from None
    return text


def write_new(file: Path, text: str) -> None:
    """Write the settings atomically; never overwrite an existing file.

    Raises:
        InitError: the file exists.
        OSError: it could not be written.
    """
    if file.exists():
        raise InitError(f"{file} exists; move it, or choose another file with --out")
    replace_file(file, text)


def ignore_generated(folder: Path) -> bool:
    """Let git ignore the secrets and the rendered files; return whether ``.gitignore`` lacked any.

    Raises:
        OSError: it could not be read or written.
    """
    file = folder / ".gitignore"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    present = {line.strip().strip("/") for line in lines}
    missing = [line for line in _IGNORED if line.strip("/") not in present]
    for line in missing:
        append_line(file, line)
    return bool(missing)


def _chosen(tree: SourceTree, target: str, ask: Callable[[str], str] | None) -> Candidate:
    if target:
        if not _TARGET.fullmatch(target):
            raise InitError(f"--app must be module:object or module:function(), not {target[:60]!r}")
        return Candidate(target, "", "named by --app")
    found = find_candidates(tree)
    if not found:
        raise InitError(
            f"no application was found in {tree.folder}: name it, such as --app shop.wsgi:application"
        )
    if len(found) == 1:
        return found[0]
    listed = "\n".join(
        f"  {number}. {each.target}  ({each.evidence})" for number, each in enumerate(found, start=1)
    )
    if ask is None:
        raise InitError(f"there is more than one application; choose with --app:\n{listed}")
    answer = ask(f"There is more than one application:\n{listed}\nNumber: ").strip()
    if not answer.isdecimal() or not 1 <= int(answer) <= len(found):
        raise InitError(f"the answer must be a number from 1 to {len(found)}")
    return found[int(answer) - 1]


def _imported(candidate: Candidate, tree: SourceTree, wanted: Wanted) -> ImportResult:
    # Not resolved: the link in a virtual environment is what makes it one.
    given = str(Path.cwd() / wanted.python) if "/" in wanted.python else wanted.python
    python = given or find_interpreter(tree.folder, here=sys.executable)
    imported = check_import(candidate.target, folder=tree.folder, roots=tree.roots, python=python)
    if imported.error:
        raise InitError(
            f"{candidate.target} ({candidate.evidence}) cannot be imported by {python}: {imported.error}\n"
            "set the variables that it needs, name another interpreter with --python, or leave the import out with "
            "--no-import"
        )
    if imported.kind and candidate.kind and imported.kind != candidate.kind:
        raise InitError(
            f"{candidate.target} looks like {candidate.kind} and is {imported.kind}: name it with --app"
        )
    return imported


def _answer(question: str, option: str, ask: Callable[[str], str] | None) -> str:
    answer = ask(f"{question}: ").strip() if ask else ""
    if not answer:
        raise InitError(f"{option} must be given")
    return answer
