"""Certificates: a placeholder so that nginx can start, the first issue, and a look at the one that is served."""

from __future__ import annotations

import os
import pwd
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mks_deploy.files import relink, replace_file

if TYPE_CHECKING:
    from cryptography import x509

    from mks_deploy.settings.model import Settings

__all__ = ["check", "issue", "load", "make_placeholder", "served_certificate"]

ALARM_AT: Final = 0.25
"""Share of the lifetime left at which something is wrong: renewal begins at a third, and has failed since."""


def make_placeholder(settings: Settings, *, now: datetime) -> bool:
    """A self-signed certificate where there is none yet, for nginx to start with; returns whether it was made."""
    served = Path(settings.certificate_files[0]).parent
    if settings.tls.source == "own" or served.exists():
        return False
    folder = served.parent / "placeholder"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = _self_signed(settings.canonical_host, now)
    # An older one may lie there, with a link to certbot's files that somebody took away.
    replace_file(folder / "privkey.pem", key, mode=0o600)
    replace_file(folder / "fullchain.pem", certificate, mode=0o600)
    relink(served, Path(folder.name))
    _give_to(f"{settings.name}-acme", served.parent)
    return True


def issue(settings: Settings, *, secrets: Path) -> int:
    """Ask for the first certificate and load it; returns the exit code. nginx must run: challenges go there."""
    hosts = (*settings.site.hosts, *settings.site.redirect_hosts)
    command = ["certbot", "certonly", "--cert-name", settings.name]
    command += [word for host in hosts for word in ("--domain", host)]
    account = _identity(f"{settings.name}-acme")
    text = (Path(settings.paths.config) / "certbot.ini").read_text(encoding="utf-8")
    if settings.tls.eab_key_id:
        key = (secrets / "acme_eab_hmac_key").read_text(encoding="utf-8").strip()
        text += f"eab-kid = {settings.tls.eab_key_id}\neab-hmac-key = {key}\n"
    # A file, because arguments are shown by ps; certbot keeps the account that results, not this key.
    with tempfile.TemporaryDirectory(prefix="certbot-") as folder:
        file = Path(folder) / "certbot.ini"
        replace_file(file, text, mode=0o600)
        if account:
            os.chown(folder, account["user"], account["group"])
            os.chown(file, account["user"], account["group"])
        # certbot has an account that may reload nothing: its hook leaves a file, and runs again as who we are.
        environ = {**os.environ, "MKS_RENEWED": f"{folder}/renewed"}
        hook = [f"{settings.paths.config}/certificate-hook", "--if-renewed"]
        command += ["--config", str(file)]
        asked = subprocess.run(command, env=environ, check=False, **account).returncode  # noqa: S603 - judged settings
        return asked or subprocess.run(hook, env=environ, check=False).returncode  # noqa: S603 - a rendered file


def check(settings: Settings, *, now: datetime, served: Callable[[Settings], bytes | None]) -> Iterator[str]:
    """What is wrong with the certificate; nothing when all is well.

    Args:
        settings: the deployment.
        now: the time.
        served: what the host serves now, DER; ``None`` where nothing answers.
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
        yield f"nothing answers for {settings.canonical_host} on port {settings.edge.https_port}"
    elif presented != certificate.public_bytes(Encoding.DER):
        yield "the certificate that is served is not the one on disk: it was not reloaded"


def load(file: Path) -> x509.Certificate:
    """The first certificate of a PEM file."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(file.read_bytes())


def served_certificate(settings: Settings, *, timeout: float = 5) -> bytes | None:
    """What this host presents for the canonical name, DER; ``timeout`` is in seconds."""
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The question is which certificate it is, not whether this machine would trust it.
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


def _identity(account: str) -> dict[str, Any]:
    """Arguments of ``Popen`` for another account; empty where we are not root, or it does not exist."""
    try:
        found = pwd.getpwnam(account)
    except KeyError:
        return {}
    if os.geteuid() != 0:
        return {}
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _give_to(account: str, folder: Path) -> None:
    identity = _identity(account)
    for path in (folder, *folder.rglob("*")) if identity else ():
        os.chown(path, identity["user"], identity["group"], follow_symlinks=False)
