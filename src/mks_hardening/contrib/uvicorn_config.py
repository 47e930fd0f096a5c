"""uvicorn with our logging and no trusted proxies: ``uvicorn.run(app, **uvicorn_config("knowledge"))``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.logging import Rotation

__all__ = ["uvicorn_config"]


def uvicorn_config(
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
    """Return options for ``uvicorn.run``: JSON logs, no access log, and no proxy trusted by uvicorn itself.

    Args:
        app_name: name of the application's logger.
        level: see ``setup_logging``, as for the following parameters.
        log_file: see ``setup_logging``.
        rotation: see ``setup_logging``.
        schema: see ``setup_logging``.
        environment: see ``setup_logging``.
        static_fields: see ``setup_logging``.
        options: further options of ``uvicorn.run``, which override ours.

    Raises:
        ConfigurationError: a parameter is invalid, or an option would undo the hardening.
    """
    from mks_hardening.logging import dict_config

    for name in options.keys() & {"log_config", "proxy_headers", "forwarded_allow_ips"}:
        raise ConfigurationError(f"{name} is set by uvicorn_config; remove it", parameter=name)
    return {
        "log_config": dict_config(
            app_name,
            level=level,
            log_file=log_file,
            rotation=rotation,
            schema=schema,
            environment=environment,
            static_fields=static_fields,
        ),
        "access_log": False,
        "proxy_headers": False,
        # The kind and version of a server help attackers to find known vulnerabilities (ASVS 5.0, 13.4.6).
        "server_header": False,
        **options,
    }
