"""The services one application is made of, built once and shared by its views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.services.catalogue import Catalogue
    from knowledge_system.services.search import SearchIndex
    from knowledge_system.settings import AppSettings
    from mks_hardening.protocols import Clock
    from mks_hardening.security import RateLimiter, TwoFactorManager
    from mks_hardening.wsgi import SessionManager

__all__ = ["Parts"]


class Parts(NamedTuple):
    """What views need; ``None`` stands for an area that is switched off."""

    settings: AppSettings
    clock: Clock
    engine: Engine
    sessions: sessionmaker[Session]
    search: SearchIndex
    cache: Any
    catalogue: Catalogue
    limiter: RateLimiter | None
    two_factor: TwoFactorManager | None
    session_manager: SessionManager | None
    session_clock: Any
