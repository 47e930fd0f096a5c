"""Notices of ``SignIn`` and ``TwoFactorManager`` to account owners, enqueued as mail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from knowledge_system.background import mail_texts
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.background.queue import Background
    from knowledge_system.services.identity.user_accounts import UserAccounts
    from mks_hardening.security import SignInAccount, SignInNotice, TwoFactorNotice

_PAGES = {"reset_requested": "/password/reset", "email_change_requested": "/account/email/confirm"}

_log = logging.getLogger(__name__)


def notifier(
    background: Background | None, sessions: sessionmaker[Session], *, site_url: str
) -> Callable[[SignInNotice], None]:
    """Create the ``on_notice`` callback of ``SignIn``.

    Args:
        background: task queue that sends the mail; without it, or without a mail server, notices are only logged.
        sessions: factory of database sessions.
        site_url: configured URL of the site; the ``Host`` header is not trusted for links with tokens.
    """

    def notify(notice: SignInNotice) -> None:
        _log.warning("notice to user %s: %s", notice.account.user_id, notice.kind)
        if background is None or not notice.to:
            return
        page = _PAGES.get(notice.kind)
        invited = notice.kind == "reset_requested" and notice.account.password_hash is None
        letter = mail_texts.about_account(
            "invited" if invited else notice.kind,
            name=notice.account.name,
            link=f"{site_url}{page}?{urlencode({'token': notice.token})}" if page else "",
            actor=notice.actor,
            reason=notice.reason,
            client=notice.client,
        )
        _mail(background, sessions, notice.account, notice.to, letter)

    return notify


def factor_notifier(
    background: Background | None, sessions: sessionmaker[Session], accounts: UserAccounts
) -> Callable[[TwoFactorNotice], None]:
    """Create the ``on_notice`` callback of ``TwoFactorManager``; parameters as for ``notifier``."""

    def notify(notice: TwoFactorNotice) -> None:
        _log.warning("notice to user %s: %s", notice.user_id, notice.kind)
        account = accounts.get(notice.user_id)
        if background is None or account is None or not account.email:
            return
        letter = mail_texts.about_account(notice.kind, name=account.name, passkey=notice.passkey)
        _mail(background, sessions, account, account.email, letter)

    return notify


def _mail(
    background: Background,
    sessions: sessionmaker[Session],
    account: SignInAccount,
    to: str,
    letter: mail_texts.MailTemplate,
) -> None:
    try:
        with sessions.begin() as session:
            background.mail(session, to, letter, user_id=int(account.user_id))
    except ConfigurationError:  # the address is invalid; the operation itself is not undone
        _log.warning("the address of user %s takes no mail", account.user_id)
