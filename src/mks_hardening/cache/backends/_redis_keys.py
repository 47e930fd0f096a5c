"""What entries, leases and versions of tags are called in Redis.

``namespace:v:{=KEY}``, ``namespace:l:{=KEY}``, ``namespace:t:{=TAG}``. What is between the first brace and the
next closing one says in which slot of a Cluster a name lies: value and lease of one key always in the same,
whatever the key holds (``=`` stands there because an empty tag would count as none), different keys in others.
Further names that begin with ``namespace:v:{=KEY}`` would lie there too. Neither a namespace nor a kind holds a
brace, so that no two namespaces meet.
"""

from __future__ import annotations

__all__ = ["RedisKeys"]


class RedisKeys:
    """The names of one namespace, as bytes: a key may hold lone surrogates, which are not UTF-8."""

    __slots__ = ("_lease", "_tag", "_value")

    def __init__(self, namespace: str) -> None:
        self._value = f"{namespace}:v:{{="
        self._lease = f"{namespace}:l:{{="
        self._tag = f"{namespace}:t:{{="

    def value(self, key: str) -> bytes:
        """Name of the value of a key, or of all that match a pattern."""
        return f"{self._value}{key}}}".encode("utf-8", "surrogatepass")

    def lease(self, key: str) -> bytes:
        """Name of the lease of a key, or of all that match a pattern."""
        return f"{self._lease}{key}}}".encode("utf-8", "surrogatepass")

    def tag(self, tag: str) -> bytes:
        """Name of the version of a tag."""
        return f"{self._tag}{tag}}}".encode("utf-8", "surrogatepass")
