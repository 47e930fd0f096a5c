"""uvicorn with our logging and nobody trusted: ``uvicorn.run(app, **uvicorn_config("knowledge"))``."""

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
    """Options of ``uvicorn.run``: its log becomes JSON, its access log is off, and it believes no proxy itself.

    Args:
        app_name: name of the application's logger.
        level: as for ``setup_logging``, like the five below.
        log_file: see there.
        rotation: see there.
        schema: see there.
        environment: see there.
        static_fields: see there.
        options: further options of ``uvicorn.run``, which go before ours.

    Raises:
        ConfigurationError: an impossible parameter, or an option that would undo what this is for.
    """
    from mks_hardening.logging import dict_config

    for name in options.keys() & {"log_config", "proxy_headers", "forwarded_allow_ips"}:
        raise ConfigurationError(f"{name} is set by uvicorn_config; leave it out", parameter=name)
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
        # Version and kind of a server are of use to those who look for its known faults (ASVS 5.0, 13.4.6).
        "server_header": False,
        **options,
    }
