"""Settings of the application around those of the library; every fault is reported at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mks_hardening.exceptions import ConfigurationError, SettingsError
from mks_hardening.settings import HardeningSettings, register_variables

__all__ = ["AREAS", "AppSettings"]

AREAS = frozenset({"logging", "cache", "security", "wsgi", "db", "notify"})
_OWN_VARIABLES = (
    "MKS_AREAS_OFF",
    "MKS_DATA_DIR",
    "MKS_DEMO",
    "MKS_DEMO_HTTPS_PORT",
    "MKS_DEMO_HTTP_PORT",
    "MKS_REQUIRE_SERVICES",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """What ``create_app`` needs.

    Attributes:
        hardening: settings of all areas.
        demo: whether this is the demonstration on one machine; adds pages that make trouble on purpose.
        data_dir: folder of the demonstration's files: database, log, sink.
        areas: areas that are used; the application runs without any of them.
    """

    hardening: HardeningSettings = field(default_factory=HardeningSettings)
    demo: bool = False
    data_dir: Path = Path("var/demo")
    areas: frozenset[str] = AREAS
    demo_password: str = field(default="", repr=False)

    @property
    def warn_before(self) -> float:
        """Seconds before the end of a session from which people are warned."""
        return self.hardening.wsgi.session_warn_before

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read all settings.

        Raises:
            SettingsError: with every fault of the library's and of our own variables.
        """
        source = os.environ if environ is None else environ
        register_variables(*_OWN_VARIABLES)
        faults: list[str] = []
        hardening = HardeningSettings()
        try:
            hardening = HardeningSettings.from_env(environ=source)
        except SettingsError as error:
            faults.extend(error.faults)
        demo = source.get("MKS_DEMO", "") == "1"
        areas_off = {name.strip() for name in source.get("MKS_AREAS_OFF", "").split(",") if name.strip()}
        faults.extend(
            f"MKS_AREAS_OFF names an unknown area: {name[:40]}" for name in sorted(areas_off - AREAS)
        )
        if source.get("MKS_DEMO", "") not in {"", "0", "1"}:
            faults.append("MKS_DEMO must be 0 or 1")
        workers = hardening.db.workers
        if workers > 1 and hardening.core.redis_url is None:
            faults.append(
                f"MKS_GUNICORN_WORKERS={workers} needs MKS_REDIS_URL: sessions and limits must be shared"
            )
        faults.extend(_missing(source, AREAS - areas_off))
        if faults:
            raise SettingsError(tuple(dict.fromkeys(faults)))
        return cls(
            hardening=hardening,
            demo=demo,
            data_dir=Path(source.get("MKS_DATA_DIR", "var/demo")),
            areas=AREAS - areas_off,
            demo_password=DEMO_PASSWORD if demo else "",
        )


# Known to everybody, and therefore only for the demonstration on loopback.
DEMO_PASSWORD = "knowledge-2026"  # noqa: S105


def _missing(source: Mapping[str, str], areas: frozenset[str]) -> Iterator[str]:
    """What the library may do without, but this application not."""
    if not {"DATABASE_URL", "DATABASE_URL_FILE"} & source.keys():
        yield "DATABASE_URL is missing: the SQLAlchemy URL of the database, for example postgresql+psycopg://…"
    if "wsgi" in areas and not source.get("MKS_ALLOWED_HOSTS"):
        yield "MKS_ALLOWED_HOSTS is missing: the host names under which the application is reached"
    if "security" in areas:
        yield from _key_faults(source)


def _key_faults(source: Mapping[str, str]) -> Iterator[str]:
    from mks_hardening.security import SecretBox

    names = ("MKS_SECRET_KEYS", "MKS_SECRET_KEYS_FILE")
    given = {name: source[name] for name in names if source.get(name)}
    if not given:
        yield "MKS_SECRET_KEYS is missing: keys for second factors at rest (base64 of 32 bytes), newest first"
        return
    try:
        SecretBox(HardeningSettings.from_env(environ=given).security.secret_keys)
    except SettingsError:
        return  # told already, with the other variables
    except ConfigurationError as error:
        yield f"MKS_SECRET_KEYS: {error}"
