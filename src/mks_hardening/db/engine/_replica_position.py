"""Positions in the write-ahead log: which transactions a read must see, and which ones a replica has replayed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from mks_hardening._core.checks import text_of
from mks_hardening.exceptions import ConfigurationError

__all__ = ["ReadToken", "ReplicaPosition", "end_of_last_record"]

# Sizes of the headers of a page of the log, short and at the start of a segment (xlog_internal.h).
_PAGE_HEADERS: Final = (24, 40)
_TEXT: Final = re.compile(r"(-?[0-9]{1,19})-([0-9]{1,10})-([0-9]{1,20})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadToken:
    """Position in the write-ahead log up to which a read must see all transactions.

    ``str(token)`` can be kept in a session or sent with a task, and ``ReadToken.parse`` reads it again.

    Attributes:
        system: identifier of the database cluster.
        timeline: timeline of the primary; it increases when a standby is promoted.
        position: bytes since the start of the log.
    """

    system: int
    timeline: int
    position: int

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return f"{self.system}-{self.timeline}-{self.position}"

    @classmethod
    def parse(cls, text: str) -> ReadToken:
        """Read the text of a token. A wrong position only sends a read to the primary.

        Args:
            text: result of ``str(token)``.

        Raises:
            ConfigurationError: it is not the text of a token.
        """
        found = _TEXT.fullmatch(text_of(text, parameter="text"))
        if found is None:
            raise ConfigurationError("text must be the text of a ReadToken", parameter="text")
        system, timeline, position = map(int, found.groups())
        return cls(system=system, timeline=timeline, position=position)


class ReplicaPosition(NamedTuple):
    """What a server says about itself.

    Attributes:
        is_replica: whether it replays the log of another server.
        position: bytes replayed since the start of the log.
        timeline: timeline that it replays; after a promotion it may still be the previous one.
        system: identifier of the database cluster.
    """

    is_replica: bool
    position: int
    timeline: int
    system: int

    def can_reach(self, token: ReadToken) -> bool:
        """Whether the server replays the log that the token belongs to.

        Positions of different timelines cannot be compared: after a promotion, the former primary may have gone on
        writing.
        """
        return self.is_replica and (self.system, self.timeline) == (token.system, token.timeline)

    def has_replayed(self, token: ReadToken) -> bool:
        """Whether a read that begins now sees all transactions up to the token."""
        return self.can_reach(token) and self.position >= token.position


def end_of_last_record(inserted: int, block_size: int) -> int:
    """Return the position that a replica reports when it has replayed everything.

    At the start of a page, ``pg_current_wal_insert_lsn`` is already behind the page header, where the next record
    will begin, while the last record ended before it. On an idle primary, no replica would reach that position. No
    record can end in a header, and one that ends shortly behind it began on an earlier page, so a replica that has
    reached the start of the page has replayed it.

    Args:
        inserted: ``pg_current_wal_insert_lsn`` in bytes.
        block_size: ``wal_block_size`` of the server.
    """
    behind_page_start = inserted % block_size
    return inserted - behind_page_start if behind_page_start in _PAGE_HEADERS else inserted
