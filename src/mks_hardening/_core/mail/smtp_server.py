"""SMTP session from the options shared by everything that sends mail."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, get_args

from mks_hardening._core.checks import boolean, choice, instance, path_text, port_number, text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.loopback import is_loopback
from mks_hardening._core.mail.smtp_session import Security, SmtpSession
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["smtp_session"]


def smtp_session(
    smtp_host: str,
    *,
    smtp_port: int,
    username: str | None,
    password: str | None,
    security: Security,
    ssl_context: SSLContext | None,
    ca_file: str | None,
    timeout: float | timedelta,
    allow_plaintext: bool,
) -> SmtpSession:
    """Return the SMTP session for the options.

    Raises:
        ConfigurationError: plaintext to another machine, a user without a password, or another invalid value.
    """
    _check_login(username, password)
    boolean(allow_plaintext, parameter="allow_plaintext")
    return SmtpSession(
        _host(smtp_host),
        port_number(smtp_port, parameter="smtp_port"),
        security=_security(security, smtp_host, allow_plaintext=allow_plaintext),
        loopback_only=not allow_plaintext,
        context=_context(security, ssl_context, ca_file),
        username=username or None,
        password=password,
        timeout=seconds(timeout, parameter="timeout", allow_zero=False),
    )


def _check_login(username: str | None, password: str | None) -> None:
    for parameter, given in (("username", username), ("password", password)):
        if given is not None:
            text_of(given, parameter=parameter)
            if not _is_utf8(given):
                raise ConfigurationError(
                    f"{parameter} must be text that can be encoded as UTF-8", parameter=parameter
                )
    if bool(username) != bool(password):
        raise ConfigurationError(
            "username and password must be given together", parameter="username" if password else "password"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: bytes of an environment variable that are not UTF-8
        return False
    return True


def _host(host: object) -> str:
    if not isinstance(host, str) or not host or not all(char.isalnum() or char in "-._:" for char in host):
        raise ConfigurationError("smtp_host must be a host name or an IP address", parameter="smtp_host")
    return host


def _security(security: Security, host: str, *, allow_plaintext: bool) -> Security:
    choice(security, get_args(Security), parameter="security")
    if security == "plain" and not allow_plaintext and not is_loopback(host):
        raise ConfigurationError(
            "security='plain' is allowed for a server on this machine only; for another host, set allow_plaintext",
            parameter="security",
        )
    return security


def _context(security: Security, given: SSLContext | None, ca_file: str | None) -> SSLContext | None:
    if given is not None:
        from ssl import SSLContext

        instance(given, SSLContext, parameter="ssl_context")
    if ca_file is not None:
        path_text(ca_file, parameter="ca_file")
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
    context.minimum_version = TLSVersion.TLSv1_2  # some distributions leave it to OpenSSL
    return context
