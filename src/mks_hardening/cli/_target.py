"""Objects of an application that commands use: ``--target MODULE:NAME``."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from mks_hardening.exceptions import ConfigurationError, MksHardeningError

__all__ = ["convert_errors", "import_target"]


@contextmanager
def convert_errors(target: str) -> Generator[None]:
    """Convert exceptions of the application's own code to a one-line error."""
    try:
        yield
    except MksHardeningError:
        raise
    except Exception as error:
        from mks_hardening._core.redaction.redactor import default_redactor

        text = default_redactor().redact_text(f"{type(error).__name__}: {error}")
        raise ConfigurationError(f"{target} raises {text}", parameter="target") from error


def import_target(target: str) -> object:
    """Import an object, also from the current folder.

    Raises:
        ConfigurationError: there is no such object.
    """
    operators_module, colon, name = target.partition(":")
    if not (colon and operators_module and name):
        raise ConfigurationError("--target must be MODULE:NAME", parameter="target")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as gunicorn and flask do, for an application that is not installed
        sys.path.insert(0, folder)
    try:
        found: object = import_module(operators_module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{target} cannot be imported ({error})", parameter="target") from error
    return found
