"""Names of entries, leases and tag versions in Redis.

``namespace:v:{=KEY}``, ``namespace:l:{=KEY}``, ``namespace:t:{=TAG}``. The text between the first opening brace and
the next closing one is the hash tag, which determines the slot in a Cluster: value and lease of a key are always in
the same slot, whatever the key contains, and different keys in different ones (the ``=`` is there because an empty
hash tag is ignored). Further names that begin with ``namespace:v:{=KEY}`` would be in that slot too. Namespaces and
kinds contain no brace, so that the names of two namespaces never collide.
"""

from __future__ import annotations

__all__ = ["RedisKeys"]


class RedisKeys:
    """Names of one namespace, as bytes: a key may contain lone surrogates, which cannot be encoded as UTF-8."""

    __slots__ = ("_lease", "_tag", "_value")

    def __init__(self, namespace: str) -> None:
        self._value = f"{namespace}:v:{{="
        self._lease = f"{namespace}:l:{{="
        self._tag = f"{namespace}:t:{{="

    def value(self, key: str) -> bytes:
        """Return the name of the value of a key, or of all keys that match a pattern."""
        return f"{self._value}{key}}}".encode("utf-8", "surrogatepass")

    def lease(self, key: str) -> bytes:
        """Return the name of the lease of a key, or of all keys that match a pattern."""
        return f"{self._lease}{key}}}".encode("utf-8", "surrogatepass")

    def tag(self, tag: str) -> bytes:
        """Return the name of the version of a tag."""
        return f"{self._tag}{tag}}}".encode("utf-8", "surrogatepass")
