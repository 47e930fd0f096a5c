"""waitress with our logging and nobody trusted: ``waitress.serve(app, **waitress_config("knowledge"))``."""

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
    """Options of ``waitress.serve``, which has none for logging: that is set up at once, for the whole process.

    Args:
        app_name: name of the application's logger.
        level: as for ``setup_logging``, like the five below.
        log_file: see there.
        rotation: see there.
        schema: see there.
        environment: see there.
        static_fields: see there.
        options: further options of ``waitress.serve``, which go before ours.

    Raises:
        ConfigurationError: an impossible parameter, or an option that would undo what this is for.
    """
    from mks_hardening.logging import setup_logging

    for name in sorted(options):
        if name.startswith(("trusted_proxy", "clear_untrusted", "url_scheme")):
            raise ConfigurationError(
                f"harden_wsgi decides which proxies are trusted; leave {name} out", parameter=name
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
    # Cleared, the fields would be gone before ``ProxyTrust`` can say whether they are to be believed.
    return {"clear_untrusted_proxy_headers": False, "ident": None, **options}
