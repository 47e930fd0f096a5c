"""Email addresses as parameters: one string or several, each with or without a display name."""

from __future__ import annotations

from collections.abc import Sequence
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import getaddresses
from typing import cast

from mks_hardening.exceptions import ConfigurationError

__all__ = ["addresses"]


def addresses(given: object, *, parameter: str) -> list[Address]:
    """Return the addresses in a string, or in a list of strings; at least one.

    Raises:
        ConfigurationError: no address, or something that is not an ASCII address.
    """
    listed = cast("Sequence[object]", given) if isinstance(given, (list, tuple)) else (given,)
    texts = [text for text in listed if isinstance(text, str) and text.isprintable()]
    if len(texts) != len(listed):
        raise ConfigurationError(
            f"{parameter} must be a string or a list of strings without control characters",
            parameter=parameter,
        )
    pairs = getaddresses([text for text in texts if text.strip()])
    if not pairs:
        raise ConfigurationError(f"{parameter} must contain at least one address", parameter=parameter)
    return [_address(name, spec, parameter=parameter) for name, spec in pairs]


def _address(name: str, spec: str, *, parameter: str) -> Address:
    try:
        address = Address(name, addr_spec=spec)
    except (MessageError, ValueError, IndexError):
        address = None
    if address is None or not address.username or not address.domain or not spec.isascii():
        raise ConfigurationError(
            f"{parameter} contains an item that is not an ASCII e-mail address", parameter=parameter
        )
    return address
