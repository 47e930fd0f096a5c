"""Setup of the library's sign-in for this application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from knowledge_system import models
from knowledge_system.services.identity.rate_limits import OfficeLimiter
from mks_hardening.security import (
    MemorySignInStore,
    RedisSignInStore,
    RelyingParty,
    SecretBox,
    SignIn,
    SQLAlchemyPasskeyStore,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from sqlalchemy import Engine

    from knowledge_system.services.identity.api_tokens import Tokens
    from knowledge_system.services.identity.openid_provider import OpenIDProvider
    from knowledge_system.services.identity.user_accounts import UserAccounts
    from knowledge_system.settings import AppSettings
    from mks_hardening.protocols import Clock
    from mks_hardening.security import Passkeys, RateLimiter, SignInNotice, SignInStore, TwoFactorNotice
    from mks_hardening.wsgi import SessionManager

INVITATION_SECONDS: Final = 86_400
"""How long the link of an invitation is valid; the mail says so too."""


def _relying_party(settings: AppSettings) -> RelyingParty | None:
    """Return the relying party for passkeys; ``None`` if the site is reached by IP address instead of a name."""
    host = urlsplit(settings.site_url).hostname or ""
    if "security" not in settings.areas or host.startswith("[") or host[-1:].isdigit() or ":" in host:
        return None
    issuer = settings.hardening.security.issuer
    return RelyingParty(host, name=issuer, origins=[settings.site_url], passwordless=True)


def open_factors(
    settings: AppSettings, engine: Engine, clock: Clock, *, on_notice: Callable[[TwoFactorNotice], None]
) -> tuple[TwoFactorManager, Passkeys | None]:
    """Create the second-factor manager, and passkeys if possible; ``on_notice`` notifies the account owner."""
    party, security = _relying_party(settings), settings.hardening.security
    manager = TwoFactorManager(
        SQLAlchemyTwoFactorStore(engine, table=models.second_factors),
        issuer=security.issuer,
        secret_box=SecretBox(security.secret_keys),
        relying_party=party,
        passkey_store=SQLAlchemyPasskeyStore(engine, tables=models.passkeys, clock=clock) if party else None,
        on_notice=on_notice,
        clock=clock,
    )
    return manager, manager.passkeys if party else None


def open_sign_in_store(settings: AppSettings, opened: ExitStack, clock: Clock) -> SignInStore:
    """Return the store of challenges and begun sign-ins, which is closed with ``opened``."""
    core = settings.hardening.core
    if core.redis_url is None:
        return opened.enter_context(MemorySignInStore(clock=clock))
    return opened.enter_context(
        RedisSignInStore(core.redis_url, store_budget=core.store_budget, allow_plaintext=core.allow_plaintext)
    )


def open_provider(settings: AppSettings, clock: Clock) -> OpenIDProvider | None:
    """Return the client of the identity provider, if the settings name one; nothing is sent yet."""
    if settings.oidc_issuer is None:
        return None
    # Only where a provider is configured: its HTTP and TLS modules take long to import.
    from knowledge_system.services.identity.openid_provider import OpenIDProvider

    return OpenIDProvider(
        settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret or "",
        redirect_uri=f"{settings.site_url}/sign-in/provider/callback",
        algorithm=settings.oidc_algorithm,
        clock=clock,
    )


def create_sign_in(
    settings: AppSettings,
    accounts: UserAccounts,
    *,
    store: SignInStore,
    limiter: RateLimiter | None,
    factors: TwoFactorManager | None,
    manager: SessionManager | None,
    tokens: Tokens,
    on_notice: Callable[[SignInNotice], None],
    clock: Clock,
) -> tuple[SignIn, SignIn]:
    """Create ``SignIn`` from the settings, and one for invitations, without the limits of resets.

    Args:
        settings: enabled areas, Redis URL, keys.
        accounts: user accounts.
        store: keeps challenges, shared by all processes.
        limiter: counts failed attempts; ``None`` if the area is disabled.
        factors: second factors; ``None`` if the area is disabled.
        manager: session manager; ``None`` if the area is disabled, and only tokens are ended.
        tokens: API tokens, which end together with the sessions.
        on_notice: notifies the account owner.
        clock: clock of the application.
    """

    def end_sessions(user_id: str) -> None:
        tokens.end_user(user_id)
        if manager is not None:
            manager.end_user(user_id)

    def sign_in(limiter: RateLimiter | OfficeLimiter | None) -> SignIn:
        return SignIn(
            accounts,
            store=store,
            limiter=limiter,
            factors=factors,
            end_sessions=end_sessions,
            device_keys=settings.hardening.security.secret_keys if "security" in settings.areas else (),
            on_notice=on_notice,
            clock=clock,
        )

    counting = (
        limiter if limiter is None or not settings.offices else OfficeLimiter(limiter, settings.offices)
    )
    # The limit of resets by address would let an administrator invite thirty people in an hour.
    return sign_in(counting), sign_in(None)
