"""Secrets of the application in ``deploy.toml``: names of variables, never values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mks_deploy.settings.credentials import CREDENTIALS
from mks_deploy.settings.definitions import Secret

__all__ = ["SERVER_SECRETS", "read_secrets"]

SERVER_SECRETS: Final = {
    credential.file: credential.variable
    for credential in CREDENTIALS
    if credential.file in {"database_url", "redis_url", "cache_url", "celery_broker_url"}
}
"""Files of the addresses of servers, each with the variable that the library and the kit read."""

_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{1,60}")
_FILES: Final = {credential.variable: credential.file for credential in CREDENTIALS if credential.variable}
_TAKEN: Final = frozenset(credential.file for credential in CREDENTIALS)
_FORM: Final = (
    'must be "file" or "variable", or a table such as {as = "variable", from = "redis_url"} with one of '
    f"{', '.join(SERVER_SECRETS)}; the secret itself is a file"
)


def read_secrets(given: object) -> tuple[tuple[Secret, ...], list[str]]:
    """Validate the table ``[secrets]``; return its secrets and errors."""
    if not isinstance(given, Mapping):
        return (), ["secrets must be a table: [secrets]"]
    made, errors = list[Secret](), list[str]()
    for name, value in given.items():
        table = {"as": value} if isinstance(value, str) else value
        if not _NAME.fullmatch(name):
            errors.append(f"secrets.{name[:40]} must be the name of a variable, in capitals")
        elif not isinstance(table, Mapping) or not _is_well_formed(table):
            errors.append(f"secrets.{name} {_FORM}")
        else:
            # A file of the deployment kit has one meaning: another secret of that name gets a separate file.
            own = f"app_{name.lower()}" if name.lower() in _TAKEN else name.lower()
            file = table.get("from", _FILES.get(name, own))
            made.append(Secret(name, str(file), as_value=table["as"] == "variable"))
    return tuple(made), errors


def _is_well_formed(table: Mapping[str, object]) -> bool:
    return (
        table.get("as") in {"file", "variable"}
        and not table.keys() - {"as", "from"}
        and table.get("from", "database_url") in SERVER_SECRETS
    )
