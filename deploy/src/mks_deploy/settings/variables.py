"""Application variables without an option of their own: known names only, and no secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mks_hardening.settings import variables

__all__ = ["APPLICATION_LIMITS", "APPLICATION_VARIABLES", "ApplicationVariable", "read_variables"]


@dataclass(frozen=True, slots=True)
class ApplicationVariable:
    """A variable of the application besides those of the library."""

    meaning: str
    example: str


APPLICATION_VARIABLES: Final = {
    "MKS_AUDIT_HEADS": ApplicationVariable(
        "File that the end of the audit log is copied to each night, best of another host (a path).",
        "/mnt/audit/heads",
    ),
    "MKS_FOUR_EYES": ApplicationVariable("Whether nobody may approve what he or she wrote (0 or 1).", "1"),
    "MKS_MAIL_DOMAIN": ApplicationVariable(
        "Who has no address of their own gets mail as username@ this (a host).", "example.jp"
    ),
    "MKS_SCAN_COMMAND": ApplicationVariable(
        "Program that says by 1 that a file is infected (a path).", "/usr/bin/clamdscan"
    ),
    "MKS_SCAN_SOCKET": ApplicationVariable(
        "Where clamd listens, instead (a path, or host:port).", "/run/clamav/clamd.ctl"
    ),
    "MKS_SECOND_FACTOR_ROLES": ApplicationVariable(
        "Roles that need a second factor (names with commas).", "admin"
    ),
    "MKS_UPLOAD_LIMIT": ApplicationVariable("Largest file that may be handed in (megabytes with m).", "15m"),
}

APPLICATION_LIMITS: Final = ("api_open", "api_poll")
"""Rate-limit groups of the application besides those of the library."""

# Values that systemd, compose and kustomize parse alike: no quotes, backslash or dollar sign, and no # after
# a space, where compose begins a comment.
_VALUE: Final = re.compile(
    r"(?!.* #)[\w./,:;@#+=*()\[\]-](?:[\w./,:;@#+=*()\[\]| -]*[\w./,:;@#+=*()\[\]-])?", re.ASCII
)


def read_variables(given: object) -> tuple[dict[str, str], list[str]]:
    """Validate the table ``[variables]``; return its values and errors."""
    if not isinstance(given, Mapping):
        return {}, ["variables must be a table: [variables]"]
    secret = {variable.name: variable.secret for variable in variables()} | dict.fromkeys(
        APPLICATION_VARIABLES, False
    )
    faults = []
    for name, value in given.items():
        if name not in secret:
            close = difflib.get_close_matches(name, secret, n=1)
            faults.append(f"variables.{name[:40]} is unknown{f'; did you mean {close[0]}?' if close else ''}")
        elif secret[name]:
            faults.append(f"variables.{name} is a secret: those are files of their own")
        elif not isinstance(value, str) or not _VALUE.fullmatch(value):
            faults.append(
                f"variables.{name} must be text without quotes, backslash, dollar and a # behind a blank"
            )
    return {str(name): str(value) for name, value in given.items()}, faults
