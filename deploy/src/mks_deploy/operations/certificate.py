"""Certificates: placeholder for nginx's first start, first issue, check of the served certificate."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import relink, replace_file
from mks_deploy.operations.application_command import account_identity

if TYPE_CHECKING:
    from cryptography import x509

    from mks_deploy.settings.definitions import Settings

__all__ = ["check", "check_rehearsal", "issue", "load", "make_placeholder", "rehearse", "served_certificate"]

ALARM_AT: Final = 0.25
"""Share of the lifetime left that raises an alert: renewal starts at a third, so it has been failing since."""


def make_placeholder(settings: Settings, *, now: datetime) -> bool:
    """Create a self-signed certificate if there is none, so that nginx can start; return whether it was created."""
    served = Path(settings.certificate_files[0]).parent
    if settings.tls.source == "own" or served.exists():
        return False
    folder = served.parent / "placeholder"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = _self_signed(settings.canonical_host, now)
    # An old placeholder may exist if the link to certbot's files was deleted.
    replace_file(folder / "privkey.pem", key, mode=0o600)
    replace_file(folder / "fullchain.pem", certificate, mode=0o600)
    relink(served, Path(folder.name))
    return True


def issue(settings: Settings, *, secrets: Path) -> int:
    """Request and load the first certificate; return the exit code. nginx must run, as it serves the challenges."""
    hosts = (*settings.site.hosts, *settings.site.redirect_hosts)
    command = ["certbot", "certonly", "--cert-name", settings.name]
    command += [word for host in hosts for word in ("--domain", host)]
    account = account_identity(f"{settings.name}-acme")
    text = (Path(settings.paths.config) / "certbot.ini").read_text(encoding="utf-8")
    if settings.tls.eab_key_id:
        key = (secrets / "acme_eab_hmac_key").read_text(encoding="utf-8").strip()
        text += f"eab-kid = {settings.tls.eab_key_id}\neab-hmac-key = {key}\n"
    # A file, because ps shows arguments; certbot stores the resulting account, not this key.
    with tempfile.TemporaryDirectory(prefix="certbot-") as folder:
        file = Path(folder) / "certbot.ini"
        owner = (account["user"], account["group"]) if account else (-1, -1)
        replace_file(file, text, mode=0o600, owner=owner)
        os.chown(folder, *owner)
        # certbot's account may not reload services: its hook only leaves a file, and runs again as this
        # process's user.
        environ = {**os.environ, "MKS_RENEWED": f"{folder}/renewed"}
        hook = [f"{settings.paths.config}/certificate-hook", "--if-renewed"]
        command += ["--config", str(file)]
        asked = subprocess.run(command, env=environ, check=False, **account).returncode  # noqa: S603 - judged settings
        return asked or subprocess.run(hook, env=environ, check=False).returncode  # noqa: S603 - a rendered file


def check(settings: Settings, *, now: datetime, served: Callable[[Settings], bytes | None]) -> Iterator[str]:
    """Yield the problems of the certificate.

    Args:
        settings: settings of the deployment.
        now: current time.
        served: returns the certificate that the host serves (DER); ``None`` if the host does not respond.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    file = Path(settings.certificate_files[0])
    try:
        certificate = load(file)
    except (OSError, ValueError):
        yield f"{file} is not a certificate that can be read"
        return
    left = certificate.not_valid_after_utc - now
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if left < lifetime * ALARM_AT:
        yield f"the certificate ends in {left / timedelta(days=1):.1f} of {lifetime / timedelta(days=1):.0f} days"
    presented = served(settings)
    if presented is None:
        yield f"nothing responds for {settings.canonical_host} on port {settings.edge.https_port}"
    elif presented != certificate.public_bytes(Encoding.DER):
        yield "the certificate that is served is not the one on disk: it was not reloaded"


def rehearse(settings: Settings) -> int:
    """Run the unit that rehearses the renewal; return the exit code."""
    command = ["systemctl", "start", f"{settings.name}-rehearse.service"]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - a unit by its name


def check_rehearsal(settings: Settings, *, now: datetime) -> Iterator[str]:
    """Yield the problems of the certificate that a rehearsal got, and delete it.

    Args:
        settings: settings of the deployment.
        now: current time.
    """
    from cryptography import x509

    rehearsal = Path(settings.paths.acme) / "rehearsal"
    folder = rehearsal / "config" / "live" / settings.name
    if Path(settings.certificate_files[0]).resolve().is_relative_to(rehearsal.resolve()):
        yield "the certificate that is served is the one of the rehearsal"
        return
    try:
        certificate = load(folder / "fullchain.pem")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issued = set(names.get_values_for_type(x509.DNSName))
        is_open = bool((folder / "privkey.pem").stat().st_mode & 0o077)
    except (OSError, ValueError, x509.ExtensionNotFound):
        yield f"{folder} holds no certificate that can be read"
        return
    if missing := sorted({*settings.site.hosts, *settings.site.redirect_hosts} - issued):
        yield f"the certificate of the rehearsal is not for {', '.join(missing)}"
    if certificate.not_valid_after_utc <= now:
        yield "the certificate of the rehearsal is not valid any more"
    if is_open:
        yield "the key of the rehearsal can be read by others"
    # Nobody may take a certificate of a staging provider for one to serve.
    shutil.rmtree(rehearsal)


def load(file: Path) -> x509.Certificate:
    """Load the first certificate of a PEM file."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(file.read_bytes())


def served_certificate(settings: Settings, *, timeout: float = 5) -> bytes | None:
    """Return the certificate this host serves for the canonical name (DER); ``timeout`` is in seconds."""
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only identifies the certificate; whether this machine trusts it does not matter.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", settings.edge.https_port), timeout=timeout) as connection,
            context.wrap_socket(connection, server_hostname=settings.canonical_host) as secured,
        ):
            return secured.getpeercert(binary_form=True)
    except OSError:
        return None


def _self_signed(host: str, now: datetime) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "placeholder until the first issue")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(hours=1))
        .not_valid_after(now.astimezone(UTC) + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    no_password = serialization.NoEncryption()
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password),
        certificate.public_bytes(pem),
    )
