"""Environment of the demonstration: defaults that work on one machine for variables that are not set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from knowledge_system.demo.atomic_writes import write_whole
from mks_hardening.security import SecretBox


class Ports(NamedTuple):
    """Loopback ports of the demonstration."""

    https: int
    http: int


ALERT_ADDRESSES: Final = {
    "MKS_ALERT_FROM": "alerts@knowledge.example",
    "MKS_ALERT_TO": "operators@knowledge.example",
}
"""Needed for any mail server: a configured one, or the sink."""


def demo_environment(environ: Mapping[str, str], *, data_dir: Path, ports: Ports) -> dict[str, str]:
    """Return the given variables with defaults added; variables set by the caller take precedence.

    Creates the data directory and, at the first start, a key in it that encrypts second factors.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    defaults = {
        "MKS_ENV": "development",
        "MKS_APP_NAME": "knowledge-system",
        "MKS_TOTP_ISSUER": "建設土木ナレッジ",
        "MKS_ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
        "MKS_HTTPS_PORT": str(ports.https),
        # HSTS on localhost would affect every other project on that host name.
        "MKS_HSTS": "0",
        "MKS_LOG_FILE": str(data_dir / "app.log"),
        "MKS_AUDIT_HEADS": str(data_dir / "audit-heads"),
        "MKS_ALERT_SPOOL": str(data_dir / "spool"),
        "DATABASE_URL": f"sqlite:///{data_dir / 'knowledge.db'}",
    }
    if not environ.get("MKS_SECRET_KEYS") and not environ.get("MKS_SECRET_KEYS_FILE"):
        defaults["MKS_SECRET_KEYS_FILE"] = str(_key_file(data_dir))
    given = {name: value for name, value in environ.items() if value != ""}
    if "MKS_SMTP_HOST" in given:
        defaults |= ALERT_ADDRESSES
    fixed = {"MKS_DEMO": "1", "MKS_DATA_DIR": str(data_dir)}
    return {**defaults, **given, **fixed, **worker_numbers(given)}


def worker_numbers(environ: Mapping[str, str]) -> dict[str, str]:
    """Default to one worker with threads, as sessions and limits are in its memory; to two if Redis stores them."""
    workers = environ.get("MKS_GUNICORN_WORKERS") or ("2" if environ.get("MKS_REDIS_URL") else "1")
    return {"MKS_GUNICORN_WORKERS": workers, "MKS_GUNICORN_THREADS": environ.get("MKS_GUNICORN_THREADS", "8")}


def _key_file(folder: Path) -> Path:
    path = folder / "secret.key"
    if not path.exists():
        write_whole(path, SecretBox.generate_key().encode())
    return path
