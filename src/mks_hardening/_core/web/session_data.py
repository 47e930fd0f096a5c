"""Keys in the session data that several packages use."""

from __future__ import annotations

from typing import Final

__all__ = ["SIGN_IN_FACTS"]

SIGN_IN_FACTS: Final = "sign_in"
"""How and when the user of the session was authenticated; written by ``SignIn``, valid in this session only."""
