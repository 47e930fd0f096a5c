"""A local certificate authority, created at the first start, and its certificate for localhost."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knowledge_system.demo.atomic_writes import write_whole

# Apple limits server certificates to 825 days, Chromium to 398; the authority is valid for several of them.
_SERVER_DAYS, _AUTHORITY_DAYS, _RENEW_DAYS = 397, 1825, 30


class Certificates(NamedTuple):
    """Files of the local authority and of the server."""

    ca_file: Path
    cert_file: Path
    key_file: Path


def ensure_certificates(folder: Path, *, now: datetime) -> Certificates:
    """Return the certificates in ``folder``; create them if missing, renew them if they expire within 30 days."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = Certificates(folder / "ca.pem", folder / "localhost.pem", folder / "localhost.key")
    authority_key_file = folder / "ca.key"
    if not _lasts(files.ca_file, authority_key_file, now):
        _make_authority(files.ca_file, authority_key_file, now)
        files.cert_file.unlink(missing_ok=True)
    if not _lasts(files.cert_file, files.key_file, now):
        _make_server(files, authority_key_file, now)
    return files


def _lasts(cert_file: Path, key_file: Path, now: datetime) -> bool:
    if not cert_file.exists() or not key_file.exists():
        return False
    certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    return certificate.not_valid_after_utc > now + timedelta(days=_RENEW_DAYS)


def _make_authority(cert_file: Path, key_file: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("knowledge-system local CA")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_whole(key_file, _key_pem(key))
    write_whole(cert_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _make_server(files: Certificates, authority_key_file: Path, now: datetime) -> None:
    authority = x509.load_pem_x509_certificate(files.ca_file.read_bytes())
    authority_key = serialization.load_pem_private_key(authority_key_file.read_bytes(), password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(
            f"{authority_key_file} does not hold an elliptic-curve key; delete the folder to start again"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ip_address("127.0.0.1")),
            x509.IPAddress(ip_address("::1")),
        ]
    )
    certificate = (
        _builder(_name("localhost"), authority.subject, key.public_key(), now, _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    write_whole(files.key_file, _key_pem(key))
    write_whole(files.cert_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
