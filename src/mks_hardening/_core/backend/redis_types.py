"""What comes from redis-py without a type that holds: it annotates answers that it has converted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

__all__ = ["Answer", "Client", "Command", "Options"]

Answer: TypeAlias = Any
"""What a server answered, raw; its type depends on the command."""
Client: TypeAlias = Any
"""A client, pool or connection of redis-py, or of one of the packages that are made like it."""
Command: TypeAlias = Sequence[object]
"""Name and arguments of one command."""
Options: TypeAlias = dict[str, Any]
"""Keyword arguments of redis-py's constructors."""
