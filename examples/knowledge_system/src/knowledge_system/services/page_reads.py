"""Reads of pages: on a replica that has everything committed so far, or on the primary."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import sessionmaker

    from mks_hardening.db import ReadReplicas

T = TypeVar("T")

_log = logging.getLogger(__name__)


class PageReads:
    """Runs the queries of pages on a replica, or on the primary if no replica is up to date.

    Each read takes a new token from the primary, so a replica must have replayed what anybody has committed until
    then. Tokens of the user's own writes would not be enough: a write of another user may take an article away
    from the reader, and a result may be cached for all users after an edit has invalidated the former one. For the
    same reason, results for the cache are read inside of ``get_or_compute``: the token is newer than the
    invalidation.

    Args:
        sessions: factory of sessions on the primary that only read.
        replicas: choice of the engine; ``None`` without replicas.
        count: called for each read that could use a replica, with ``replica``, ``primary`` (no replica was up to
            date), or ``repeated`` (the read failed on a replica and was repeated on the primary).
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        *,
        replicas: ReadReplicas[Engine] | None = None,
        count: Callable[[str], None] = lambda _source: None,
    ) -> None:
        self.sessions = sessions
        self._replicas = replicas
        self._count = count

    def run(self, read: Callable[[Session], T]) -> T:
        """Return the result of ``read``, which must not write and may run twice.

        Do not call it while this thread uses a session on the primary: it would need a second connection.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the primary is not available.
        """
        replica = self._replica()
        if replica is not None:
            try:
                with Session(replica) as session:
                    found = read(session)
            except SQLAlchemyError as error:  # it stopped, or replaying the log cancelled the query
                _log.info("a read failed on a replica and is repeated (%s)", type(error).__name__)
                self._count("repeated")
            else:
                self._count("replica")
                return found
        with self.sessions() as session:
            return read(session)

    def _replica(self) -> Engine | None:
        if self._replicas is None:
            return None
        engine = self._replicas.engine(after=self._replicas.token())
        if engine is self._replicas.primary:
            self._count("primary")
            return None
        return engine.execution_options(isolation_level="AUTOCOMMIT")
