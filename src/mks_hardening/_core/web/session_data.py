"""Names in the data of a session that several areas know."""

from __future__ import annotations

from typing import Final

__all__ = ["SIGN_IN_FACTS"]

SIGN_IN_FACTS: Final = "sign_in"
"""How and when the owner of the session was authenticated; written by ``SignIn``, valid in this session alone."""
