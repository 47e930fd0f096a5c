"""Alerts by e-mail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, cast, get_args

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening._core.loopback import is_loopback
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.handler import NotificationHandler
from mks_hardening.notify.layout import Language, Layout
from mks_hardening.notify.policy import AlertPolicy

if TYPE_CHECKING:
    from email.headerregistry import Address
    from ssl import SSLContext

    from mks_hardening._core.redact import SecretRedactor
    from mks_hardening.notify.smtp_transport import Security
    from mks_hardening.protocols import Clock, Transport

__all__ = ["EmailNotificationHandler"]


class EmailNotificationHandler(NotificationHandler):
    """Sends alerts over SMTP.

    Args:
        smtp_host: name of the server, which its certificate must carry.
        smtp_port: 587 for ``starttls``, 465 as a rule for ``tls``.
        from_addr: sender, ``ops@example.com`` or ``Operations <ops@example.com>``.
        to_addrs: recipients; one text may hold several, separated by commas.
        username: log in as; without it there is no log-in.
        password: password of that user.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain`` (a server on this machine only).
        ssl_context: what to trust, instead of the system's certificates.
        ca_file: certificates to trust, instead of the system's.
        timeout: seconds for one delivery, from connecting to the last reply.
        subject_prefix: beginning of each subject; the environment follows it.
        level: least level of records that become alerts.
        policy: when, how often, how much.
        spool: folder for what cannot be delivered.
        allow_plaintext: whether ``plain`` may leave this machine.
        lang: ``en`` or ``ja``.
        environment: shown in each alert and its subject, for example ``production``; ``MKS_ENV`` when ``None``.
        redactor: takes secrets out; the default one when ``None``.
        transport: delivers instead of SMTP, for tests.
        clock: wall and monotonic time.

    Raises:
        ConfigurationError: no recipients, a malformed address, clear text to another machine, a user without a
            password, or another unusable value.
    """

    def __init__(
        self,
        smtp_host: str,
        *,
        smtp_port: int = 587,
        from_addr: str,
        to_addrs: str | Sequence[str],
        username: str | None = None,
        password: str | None = None,
        security: Security = "starttls",
        ssl_context: SSLContext | None = None,
        ca_file: str | None = None,
        timeout: float | timedelta = 10,
        subject_prefix: str = "[MKS]",
        level: int | str = "ERROR",
        policy: AlertPolicy = AlertPolicy(),  # noqa: B008 - immutable
        spool: str | os.PathLike[str] | None = None,
        allow_plaintext: bool = False,
        lang: Language = "ja",
        environment: str | None = None,
        redactor: SecretRedactor | None = None,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # Not needed by those who only import the area: e-mail, TLS and SMTP are a hundred modules.
        from mks_hardening.notify.email_layout import EmailLayout
        from mks_hardening.notify.smtp_transport import SmtpTransport

        sender, *others = _addresses(from_addr, parameter="from_addr")
        if others:
            raise ConfigurationError("from_addr must be one address", parameter="from_addr")
        recipients = _addresses(to_addrs, parameter="to_addrs")
        _check_login(username, password)
        super().__init__(
            "email",
            render=EmailLayout(
                Layout(lang), sender=sender, recipients=recipients, subject_prefix=_line(subject_prefix)
            ),
            transport=transport
            or SmtpTransport(
                _host(smtp_host),
                _port(smtp_port),
                security=_security(security, smtp_host, allow_plaintext=allow_plaintext),
                loopback_only=not allow_plaintext,
                context=_context(security, ssl_context, ca_file),
                username=username or None,
                password=password,
                sender=sender.addr_spec,
                recipients=[address.addr_spec for address in recipients],
                timeout=seconds(timeout, parameter="timeout", allow_zero=False),
            ),
            level=level,
            policy=policy,
            spool=spool,
            destination=",".join(address.addr_spec for address in recipients),
            environment=environment,
            redactor=redactor,
            clock=clock,
        )


def _addresses(given: object, *, parameter: str) -> list[Address]:
    from email.utils import getaddresses

    listed = cast("Sequence[object]", given) if isinstance(given, (list, tuple)) else (given,)
    texts = [text for text in listed if isinstance(text, str) and text.isprintable()]
    if len(texts) != len(listed):
        raise ConfigurationError(
            f"{parameter} must be a text or a list of texts without control characters", parameter=parameter
        )
    pairs = getaddresses([text for text in texts if text.strip()])
    if not pairs:
        raise ConfigurationError(f"{parameter} must name at least one address", parameter=parameter)
    return [_address(name, spec, parameter=parameter) for name, spec in pairs]


def _address(name: str, spec: str, *, parameter: str) -> Address:
    from email.errors import MessageError
    from email.headerregistry import Address

    try:
        address = Address(name, addr_spec=spec)
    except (MessageError, ValueError, IndexError):
        address = None
    if address is None or not address.username or not address.domain or not spec.isascii():
        raise ConfigurationError(
            f"{parameter} holds something that is not an ASCII e-mail address", parameter=parameter
        )
    return address


def _check_login(username: str | None, password: str | None) -> None:
    if bool(username) != bool(password):
        raise ConfigurationError(
            "username and password belong together", parameter="username" if password else "password"
        )


def _host(host: object) -> str:
    if not isinstance(host, str) or not host or not all(char.isalnum() or char in "-._:" for char in host):
        raise ConfigurationError("smtp_host must be the name or address of a host", parameter="smtp_host")
    return host


def _port(port: object) -> int:
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ConfigurationError("smtp_port must be an integer from 1 to 65535", parameter="smtp_port")
    return port


def _security(security: Security, host: str, *, allow_plaintext: bool) -> Security:
    from mks_hardening.notify.smtp_transport import Security as Known

    if security not in get_args(Known):
        raise ConfigurationError(
            f"security must be one of {', '.join(get_args(Known))}", parameter="security"
        )
    if security == "plain" and not allow_plaintext and not is_loopback(host):
        raise ConfigurationError(
            "security='plain' is for a server on this machine; clear text to another one needs allow_plaintext",
            parameter="security",
        )
    return security


def _context(security: Security, given: SSLContext | None, ca_file: str | None) -> SSLContext | None:
    if security == "plain":
        return None
    if given is not None and ca_file is not None:
        raise ConfigurationError("give ssl_context or ca_file, not both", parameter="ca_file")
    if given is not None:
        return given
    from ssl import TLSVersion, create_default_context

    try:
        context = create_default_context(cafile=ca_file)
    except OSError:
        raise ConfigurationError(
            "ca_file must be a readable file of certificates", parameter="ca_file"
        ) from None
    context.minimum_version = TLSVersion.TLSv1_2  # some distributions leave it to OpenSSL's own configuration
    return context


def _line(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix.isprintable() or len(prefix) > 60:
        raise ConfigurationError(
            "subject_prefix must be a printable line of at most 60 characters", parameter="subject_prefix"
        )
    return prefix
