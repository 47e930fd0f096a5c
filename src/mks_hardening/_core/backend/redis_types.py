"""Type aliases for redis-py objects without reliable types: its annotations describe converted responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

__all__ = ["Answer", "Client", "Command", "Options"]

Answer: TypeAlias = Any
"""Raw response of a server; its type depends on the command."""
Client: TypeAlias = Any
"""A client, pool or connection of redis-py or of a compatible package."""
Command: TypeAlias = Sequence[object]
"""Name and arguments of one command."""
Options: TypeAlias = dict[str, Any]
"""Keyword arguments of redis-py's constructors."""
