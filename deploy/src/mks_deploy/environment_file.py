"""Environment file of the application: documents every variable, and sets those that follow from the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from mks_deploy.settings.consistency import WORKER_GENERATIONS, connections_of_workers
from mks_hardening.compose import rate_limiter
from mks_hardening.exceptions import ConfigurationError, SettingsError
from mks_hardening.security import DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS
from mks_hardening.settings import HardeningSettings, register_variables, variables

if TYPE_CHECKING:
    from mks_deploy.settings.credentials import Credential
    from mks_deploy.settings.definitions import Settings

__all__ = ["Line", "has_alert_channel", "register_own_variables", "variable_errors", "variables_of"]

_OF_THE_UNITS: Final = (
    "MKS_ACME_WEBROOT",
    "MKS_BACKUPS",
    "MKS_BACKUP_MAX_AGE",
    "MKS_CELERY_BROKER_URL",
    "MKS_CELERY_BROKER_URL_FILE",
    "MKS_OFFICES",
    "MKS_UPLOADS",
)
"""Variables of the units besides those of the library."""


@dataclass(frozen=True, slots=True)
class Line:
    """One variable of the file.

    Attributes:
        name: name of the variable.
        help: meaning and format.
        value: value to set; ``None`` to keep the default.
        default: default value in the variable's format.
        secret: whether the value is provided as a credential instead.
    """

    name: str
    help: str
    value: str | None
    default: str
    secret: bool


def variables_of(settings: Settings, credentials: tuple[Credential, ...]) -> Iterator[tuple[str, list[Line]]]:
    """Yield the areas with their variables."""
    chosen = {**_chosen(settings), **settings.variables}
    given = {credential.variable for credential in credentials}
    for area, group in groupby(variables(), key=lambda variable: variable.area):
        yield (
            area,
            [
                Line(
                    name=variable.name,
                    help=f"{variable.help} ({variable.form})",
                    value=None if variable.secret else chosen.get(variable.name),
                    default=variable.default_text,
                    secret=variable.name in given,
                )
                for variable in group
            ],
        )

    own = dict(settings.app.variables)
    lines = [
        Line(name, each.meaning, chosen.get(name), each.example, secret=False) for name, each in own.items()
    ]
    known = {variable.name for variable in variables()} | own.keys()
    lines += [
        Line(name, "Set in [variables] of deploy.toml.", value, "", secret=False)
        for name, value in settings.variables.items()
        if name not in known
    ]
    if lines:
        yield "application", lines


def register_own_variables(names: Iterable[str]) -> None:
    """Register the variables of a unit, which were checked when they were rendered: the library warns of none."""
    register_variables(*(name for name in names if name.startswith("MKS_")))


def has_alert_channel(settings: Settings, credentials: Iterable[Credential]) -> bool:
    """Whether alerts of the application and of failed units reach anybody, by mail or by Slack."""
    given = {credential.variable for credential in credentials}
    return bool(
        {"MKS_SMTP_HOST", "MKS_SLACK_WEBHOOK_URL"} & {*_chosen(settings), *settings.variables, *given}
    )


def variable_errors(settings: Settings) -> Iterator[str]:
    """Yield the errors of ``[variables]`` in combination with the other options, as found by the library."""
    chosen, given = _chosen(settings), settings.variables
    for name in given:
        if name in chosen or name in _OF_THE_UNITS:
            yield f"variables.{name} follows from the other options"
    register_own_variables((*_OF_THE_UNITS, *dict(settings.app.variables)))
    library = {variable.name for variable in variables()}
    try:
        read = HardeningSettings.from_env(
            environ={name: value for name, value in {**chosen, **given}.items() if name in library}
        )
    except SettingsError as error:
        yield from (f"variables: {text}" for text in error.errors if any(name in text for name in given))
        return
    try:  # in memory: the variables contain no secrets such as the Redis URL
        rate_limiter(
            read, {**DEFAULT_RATE_LIMITS, **SIGN_IN_LIMITS, **dict.fromkeys(settings.app.limits, "1/minute")}
        )
    except ConfigurationError as error:
        yield f"variables: {error}"


def _chosen(settings: Settings) -> dict[str, str]:
    site, tls, gunicorn = settings.site, settings.tls, settings.gunicorn
    direct = settings.edge.mode == "direct"
    chosen = {
        "MKS_ENV": site.environment,
        "MKS_APP_NAME": site.name,
        "MKS_ALLOWED_HOSTS": ",".join(site.hosts),
        "MKS_HTTPS_PORT": str(settings.edge.https_port),
        "MKS_HSTS_MAX_AGE": f"{tls.hsts_max_age}s",
        "MKS_HSTS_INCLUDE_SUBDOMAINS": str(int(tls.hsts_subdomains)),
        "MKS_LOG_FILE": f"{settings.paths.logs}/app.log",
        "MKS_ALERT_SPOOL": f"{settings.paths.state}/spool",
        "MKS_DB_MAX_CONNECTIONS": str(connections_of_workers(settings)),
        "MKS_DB_GENERATIONS": str(WORKER_GENERATIONS),
        "MKS_DB_STATEMENT_TIMEOUT": f"{settings.stores.statement_timeout}s",
        "MKS_GUNICORN_WORKERS": str(gunicorn.workers),
        "MKS_GUNICORN_THREADS": str(gunicorn.threads),
    }
    if settings.stores.pooler:
        chosen["MKS_DB_TRANSACTION_POOLING"] = "1"
    if settings.logs.ship == "elasticsearch":
        chosen["MKS_LOG_SCHEMA"] = "ecs"
    if settings.upkeep.mail_sink:
        chosen |= {
            "MKS_SMTP_HOST": "localhost",
            "MKS_SMTP_PORT": str(settings.upkeep.mail_sink_port),
            "MKS_SMTP_SECURITY": "plain",
            "MKS_ALERT_FROM": f"{site.name}@{site.hosts[0]}",
            "MKS_ALERT_TO": settings.upkeep.alert_mail,
        }
    elif settings.upkeep.smtp_host:
        chosen |= {
            "MKS_SMTP_HOST": settings.upkeep.smtp_host,
            "MKS_SMTP_PORT": str(settings.upkeep.smtp_port),
            # Encryption within one machine protects nothing.
            "MKS_SMTP_SECURITY": "plain" if settings.upkeep.smtp_host == "localhost" else "starttls",
            "MKS_ALERT_FROM": settings.upkeep.smtp_user or f"{site.name}@{site.hosts[0]}",
            "MKS_ALERT_TO": settings.upkeep.alert_mail,
        }
        chosen |= {"MKS_SMTP_USER": settings.upkeep.smtp_user} if settings.upkeep.smtp_user else {}
    # nginx connects to gunicorn over a Unix socket that only nginx may open.
    return chosen if direct else {**chosen, "MKS_TRUSTED_PROXIES": "unix"}
