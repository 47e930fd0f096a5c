"""Settings and secrets that commands of both sides read, with one message for all errors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mks_deploy.environment_file import has_alert_channel, variable_errors
from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.release import ReleaseError
from mks_deploy.rendering import HOST_FILE
from mks_deploy.settings.credentials import credential_errors, used_credentials
from mks_deploy.settings.definitions import Host, Settings
from mks_deploy.settings.settings_file import DeploySettingsError, find_settings_file, read_settings
from mks_deploy.versions import OLDEST_NGINX, Installed, detect, parse_version

__all__ = [
    "DIFFERENT",
    "DONE",
    "WRONG",
    "checked_settings",
    "host_names",
    "host_secrets",
    "host_settings",
    "installed_versions",
    "notes_on",
    "own_name",
    "read_text",
    "version_number",
    "with_slots",
]

DONE, DIFFERENT, WRONG = 0, 1, 2
_ETC = Path("/etc")


def host_settings(options: argparse.Namespace) -> Settings:
    """Return the settings of this host, by default those in ``/etc``."""
    file = options.settings or find_settings_file(_ETC)
    settings = read_settings(read_text(file), file=file.name)
    return _on_host(settings, own_name(settings, file.parent))


def own_name(settings: Settings, folder: Path) -> str:
    """Return the name of this host in ``[[hosts]]``; empty if there is only one host."""
    which = folder / HOST_FILE
    return read_text(which).strip() if settings.hosts and which.exists() else ""


def with_slots(options: argparse.Namespace) -> Settings:
    """Return the settings of a host that releases versions side by side.

    Raises:
        ReleaseError: this host does not.
    """
    settings = host_settings(options)
    if settings.edge.mode == "direct":
        raise ReleaseError(
            'with edge.mode = "direct" there is nothing between two versions: see "Without nginx"'
        )
    if not settings.has_role("web"):
        raise ReleaseError('this host has not the role "web": mks-deploy up --version VERSION moves it')
    return settings


def host_secrets(options: argparse.Namespace, settings: Settings) -> Path:
    """Return the folder with the secrets of this host."""
    return options.secrets or plain_credentials(settings)


def read_text(file: Path) -> str:
    """Read a file in UTF-8.

    Raises:
        DeploySettingsError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DeploySettingsError([f"{file.name} must be UTF-8 text"]) from None


def notes_on(settings: Settings, secrets: Path) -> list[str]:
    """Return what an operator should know about settings that are valid."""
    # Other accounts than root cannot look into the folder of a host.
    if not os.access(secrets, os.X_OK) or has_alert_channel(settings, used_credentials(secrets, settings)):
        return []
    note = (
        "no alert of the application or of a failed unit leaves the host: upkeep.smtp_host would mail them to "
        f"{settings.upkeep.alert_mail}, and the secret slack_webhook_url would post them"
    )
    return [note]


def version_number(text: str) -> tuple[int, ...]:
    """Parse the version of a program, as an argument."""
    try:
        return parse_version(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}") from None


def checked_settings(options: argparse.Namespace) -> Settings:
    """Validate settings and secrets together, so that one message lists all errors."""
    text = read_text(options.settings)
    errors = list(_version_errors(options))
    file = options.settings.name
    try:
        settings = read_settings(text, file=file)
        settings = _on_host(settings, getattr(options, "host", ""))
    except DeploySettingsError as error:
        further = [*credential_errors(options.secrets, error.readable), *errors]
        raise DeploySettingsError([*error.errors, *further], text=text, file=file) from None
    if errors := [*credential_errors(options.secrets, settings), *variable_errors(settings), *errors]:
        raise DeploySettingsError(errors, text=text, file=file)
    return settings


def _on_host(settings: Settings, name: str | list[str]) -> Settings:
    """Return the settings as seen from the host that --host names, where one has to be named."""
    if isinstance(name, list):
        return settings  # `up`, which goes to several
    known = ", ".join(host_names(settings.hosts))
    if settings.hosts and not name:
        raise DeploySettingsError([f"--host must name one of [[hosts]]: {known}"])
    if not settings.hosts and name:
        raise DeploySettingsError(["--host needs [[hosts]] in deploy.toml"])
    try:
        return settings.on(name) if name else settings
    except ValueError:
        raise DeploySettingsError([f"--host must name one of [[hosts]]: {known}"]) from None


def _version_errors(options: argparse.Namespace) -> list[str]:
    wanted = ".".join(map(str, OLDEST_NGINX))
    return [f"nginx must be {wanted} or newer"] if installed_versions(options).nginx < OLDEST_NGINX else []


def installed_versions(options: argparse.Namespace) -> Installed:
    """Return the versions of nginx and OpenSSL, given or found here."""
    here = detect() or Installed()
    return Installed(options.nginx or here.nginx, options.openssl or here.openssl)


def host_names(hosts: Sequence[Host]) -> list[str]:
    """Return the names of hosts."""
    return [host.name for host in hosts]
