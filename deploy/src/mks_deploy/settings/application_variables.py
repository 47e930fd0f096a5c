"""Application variables without a separate option: known names only, and no secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening.settings import variables

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import OwnVariable

__all__ = ["looks_secret", "read_variables"]

_PREFIX: Final = "MKS_"
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
_SECRET: Final = re.compile(
    r"(.*_)?(SECRET|PASSWORD|PASSWD|TOKEN|PRIVATE_KEY|SECRET_KEYS?|API_KEY|ACCESS_KEY|DATABASE_URL|DSN)"
)
_CREDENTIALS: Final = re.compile(r"://[^/@]*:[^/@]*@")

# Values that systemd, compose and kustomize parse alike: no quotes, backslash or dollar sign, and no # after
# a space, where compose begins a comment.
_VALUE: Final = re.compile(
    r"(?!.* #)[\w./,:;@#+=*()\[\]-](?:[\w./,:;@#+=*()\[\]| -]*[\w./,:;@#+=*()\[\]-])?", re.ASCII
)


def looks_secret(name: str) -> bool:
    """Whether the name of a variable indicates a secret."""
    return _SECRET.fullmatch(name) is not None


def read_variables(given: object, *, own: Mapping[str, OwnVariable]) -> tuple[dict[str, str], list[str]]:
    """Validate the table ``[variables]``; return its values and errors.

    Args:
        given: the table.
        own: variables of the application that begin like those of the library.
    """
    if not isinstance(given, Mapping):
        return {}, ["variables must be a table: [variables]"]
    secret = {variable.name: variable.secret for variable in variables()} | dict.fromkeys(own, False)
    errors = []
    for name, value in given.items():
        text = value if isinstance(value, str) else ""
        if name not in secret and (name.startswith(_PREFIX) or not _NAME.fullmatch(name)):
            close = difflib.get_close_matches(name, secret, n=1)
            errors.append(f"variables.{name[:40]} is unknown{f'; did you mean {close[0]}?' if close else ''}")
        elif secret.get(name, looks_secret(name) or bool(_CREDENTIALS.search(text))):
            errors.append(f"variables.{name} is a secret: secrets are separate files, see [secrets]")
        elif not _VALUE.fullmatch(text):
            errors.append(
                f"variables.{name} must be text of ASCII letters, digits, blanks between them and "
                "any of ./,:;@#+=*()[]|_- but no # behind a blank"
            )
    return {str(name): str(value) for name, value in given.items()}, errors
