"""Create or update .venv from a hash-pinned lock file: ``tools/python tools/setup_venv.py demo|dev|peers|release``.

Uses only the standard library and uv, pinned in ``requirements/uv.txt``, which installs an environment in seconds.
pip is used if uv is unavailable or fails, or if pip is configured with another index, which uv would not use.
``dev`` includes everything in ``demo``; ``peers`` and ``release`` are for benchmarks and releases. All lock files
contain the same versions and share one environment: each adds what is missing and removes nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
UV = VENV / "bin" / "uv"


def main(kind: str) -> None:
    """Install ``requirements/KIND.txt`` and the packages of the tree into .venv."""
    if not venv_works():
        make_venv()
    if not pip_has_custom_index():
        install_uv()
    install_lock(kind)
    say("Installing mks-hardening, mks-check, mks-deploy and knowledge-system from this tree ...")
    places = (ROOT, ROOT / "check", ROOT / "deploy", ROOT / "examples" / "knowledge_system")
    trees = [word for place in places for word in ("-e", str(place))]
    install(["--no-deps", "--no-build-isolation", *trees], count=len(places))
    for stamp in {"demo", kind} if kind == "dev" else {kind}:
        (VENV / f"{stamp}.stamp").touch()


def venv_works() -> bool:
    """Return whether .venv has a working interpreter and pip; a system upgrade may have removed them."""
    question = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", question], check=False, capture_output=True).returncode == 0
    )


def make_venv() -> None:
    """Create .venv, or name the missing packages of the distribution."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"Python {version} at {sys.executable} cannot make virtual environments (ensurepip is not available).\n"
            f"On Debian and Ubuntu:  apt-get update && apt-get install -y python3-venv\n"
            f"(or python{version}-venv), then the same command again."
        )
    say(f"Creating .venv with Python {version} ({sys.executable}) ...")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)


def pip_has_custom_index() -> bool:
    """Return whether pip is configured with an index that uv would not use."""
    settings = subprocess.run([*PIP, "config", "list"], check=False, capture_output=True, text=True).stdout
    return "index-url" in settings or "no-index" in settings


def install_uv() -> None:
    """Install the pinned uv, or remove it: without it, pip installs everything."""
    pinned = ["--require-hashes", "-r", str(ROOT / "requirements" / "uv.txt")]
    done = subprocess.run([*PIP, "install", "-q", *pinned], check=False, capture_output=True)
    if done.returncode:
        UV.unlink(missing_ok=True)


def install_lock(kind: str, *, python: Path = PYTHON) -> None:
    """Install ``requirements/KIND.txt``, which is complete, into the environment of an interpreter."""
    lock = ROOT / "requirements" / f"{kind}.txt"
    count = len(re.findall(r"^\S+==", lock.read_text(), re.MULTILINE))
    install(["--require-hashes", "--no-deps", "-r", str(lock)], count=count, python=python)


def install(arguments: list[str], *, count: int, python: Path = PYTHON) -> None:
    """Install with uv, or with pip if that fails."""
    if UV.exists():
        say(f"Installing {count} packages ...")
        command = [str(UV), "pip", "install", "--quiet", "--python", str(python), *arguments]
        environment = {"UV_SYSTEM_CERTS": "1", **os.environ}  # those that pip uses, too
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True)
        if not done.returncode:
            return
        say("uv could not install them; trying pip, which knows other settings.")
    install_with_pip(arguments, count=count, python=python)


def install_with_pip(arguments: list[str], *, count: int, python: Path) -> None:
    """Run pip with a progress counter; print its whole output if it fails."""
    command = [
        *PIP,
        "--python",
        str(python),
        "install",
        "--progress-bar",
        "off",
        "--root-user-action",
        "ignore",
    ]
    command += arguments
    output: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        seen = 0
        for line in pip.stdout:
            output.append(line)
            if name := re.match(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line):
                seen += 1
                show(f"Getting package {seen} of at most {count}: {name[1]}")
            elif line.startswith("Installing collected packages"):
                show(f"Installing {line.count(',') + 1} packages ...")
    if sys.stdout.isatty():
        print()
    if pip.returncode:
        sys.exit("".join(output[-40:]) + f"pip failed (exit {pip.returncode}); the lines above say why.")


def show(text: str) -> None:
    """Show one line of progress: updated in place on a terminal, otherwise printed at intervals."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text[:100]}", end="", flush=True)
    elif re.search(r"\b\d*[05] of|Installing", text):
        say(text)


def say(text: str) -> None:
    """Print one line."""
    print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
