"""Paths of the server programs, and skipping of tests whose server is missing."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRE_VARIABLE = "REQUIRE_SERVICES"

SYSTEM_FOLDERS: tuple[str, ...] = ("/usr/local/sbin", "/usr/sbin")
"""Where servers are and the PATH of an ordinary account does not lead."""

POSTGRES_17: Path = Path("/usr/local/lib/mks-hardening-tests/postgresql-17")
"""Root of the PostgreSQL that tools/get_servers.py unpacks beside the one of the system."""

missing: dict[str, set[str]] = {}
"""What was not there, with the tests that were skipped for it."""


def program(name: str) -> str:
    """Return the path of a server program; without it, the test is skipped and reported, or fails."""
    folders = [os.environ.get("PATH", ""), *SYSTEM_FOLDERS, *_postgres_folders()]
    return shutil.which(name, path=os.pathsep.join(folders)) or unavailable(
        name, "no such program on this machine"
    )


def unavailable(service: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it if all services are required, and list it in the summary."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "?").rpartition(" ")[0]
    missing.setdefault(f"{service}: {reason}", set()).add(test)
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{service} is required ({REQUIRE_VARIABLE}=1) but {reason}", pytrace=False)
    pytest.skip(f"{service}: {reason}")


def unprivileged() -> dict[str, Any]:
    """Return arguments of ``Popen`` that drop root privileges, for servers that refuse root; empty without root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def postgres_with_hypopg() -> Path:
    """Return the programs of a PostgreSQL with the extension hypopg; without one, as ``program``."""
    for root in (Path("/"), POSTGRES_17):
        for file in (root / "usr/share/postgresql").glob("*/extension/hypopg.control"):
            return root / "usr/lib/postgresql" / file.parts[-3] / "bin"
    unavailable("hypopg", "no PostgreSQL with this extension on this machine")


def _postgres_folders() -> list[str]:
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    return [str(folder) for folder in versions]
