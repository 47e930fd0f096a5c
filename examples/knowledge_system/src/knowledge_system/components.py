"""Services of one application, built once and shared by its views."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.background.queue import Background
    from knowledge_system.services.attachments.upload_intake import Intake
    from knowledge_system.services.identity.api_tokens import Tokens
    from knowledge_system.services.identity.openid_provider import OpenIDProvider
    from knowledge_system.services.knowledge.article_reader import ArticleReader
    from knowledge_system.services.operations.metric_samples import Samples
    from knowledge_system.services.page_reads import PageReads
    from knowledge_system.services.sign_in_audit import SignInAuditLog
    from knowledge_system.settings import AppSettings
    from mks_hardening.cache import CDNManager
    from mks_hardening.db import SearchIndex
    from mks_hardening.protocols import Clock, SessionStore
    from mks_hardening.security import (
        CredentialChanges,
        Passkeys,
        RateLimiter,
        SignIn,
        SignInStore,
        TwoFactorManager,
    )
    from mks_hardening.wsgi import SessionManager


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Services that views use; ``None`` means that the area is disabled."""

    settings: AppSettings
    clock: Clock
    engine: Engine
    sessions: sessionmaker[Session]
    search: SearchIndex
    cache: Any
    catalogue: ArticleReader
    page_reads: PageReads
    limiter: RateLimiter | None
    two_factor: TwoFactorManager | None
    passkeys: Passkeys | None
    sign_in: SignIn
    changes: CredentialChanges | None
    invitations: CredentialChanges | None
    provider: OpenIDProvider | None
    provider_flows: SignInStore
    session_store: SessionStore | None
    session_manager: SessionManager | None
    session_clock: Any
    background: Background | None
    link_keys: tuple[bytes, ...]
    tokens: Tokens
    trail: SignInAuditLog
    samples: Samples
    cdn: CDNManager | None
    intake: Intake
    opened: ExitStack

    @property
    def reads(self) -> sessionmaker[Session]:
        """Return the factory of read-only sessions on the primary, which run each statement in autocommit mode."""
        return self.page_reads.sessions

    def end_sessions(self, user_id: str) -> None:
        """End every browser session and every token of a user; without a session manager, only the tokens."""
        self.tokens.end_user(user_id)
        if self.session_manager is not None:
            self.session_manager.end_user(user_id)

    def serve(self) -> None:
        """Start the background threads, and close everything when the process exits."""
        self.opened.enter_context(self.samples.writing())
        if self.background is not None:
            self.opened.enter_context(self.background.serving())
        atexit.register(self.close)

    def close(self) -> None:
        """Close connections and remove hooks; may be called more than once."""
        self.opened.close()
