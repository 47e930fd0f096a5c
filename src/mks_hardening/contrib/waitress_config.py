"""waitress with our logging and no trusted proxies: ``waitress.serve(app, **waitress_config("knowledge"))``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.logging import Rotation

__all__ = ["waitress_config"]


def waitress_config(
    app_name: str,
    *,
    level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    rotation: Rotation | None = None,
    schema: str = "default",
    environment: str | None = None,
    static_fields: Mapping[str, object] | None = None,
    **options: object,
) -> dict[str, object]:
    """Return options for ``waitress.serve``, and set up logging for the process, for which waitress has no option.

    Args:
        app_name: name of the application's logger.
        level: see ``setup_logging``, as for the following parameters.
        log_file: see ``setup_logging``.
        rotation: see ``setup_logging``.
        schema: see ``setup_logging``.
        environment: see ``setup_logging``.
        static_fields: see ``setup_logging``.
        options: further options of ``waitress.serve``, which override ours.

    Raises:
        ConfigurationError: a parameter is invalid, or an option would undo the hardening.
    """
    from mks_hardening.logging import setup_logging

    for name in sorted(options):
        if name.startswith(("trusted_proxy", "clear_untrusted", "url_scheme")):
            raise ConfigurationError(
                f"harden_wsgi decides which proxies are trusted; remove {name}", parameter=name
            )
    setup_logging(
        app_name,
        level=level,
        log_file=log_file,
        rotation=rotation,
        schema=schema,
        environment=environment,
        static_fields=static_fields,
    )
    # waitress must not clear the headers before ``ProxyTrust`` decides whether to trust them.
    return {"clear_untrusted_proxy_headers": False, "ident": None, **options}
