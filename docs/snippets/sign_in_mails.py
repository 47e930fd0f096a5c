from collections.abc import Callable

from mks_hardening.db import hardened_engine
from mks_hardening.security import SignInAccount, SignInNotice
from mks_hardening.tasks import MailTask, Tasks

PAGE = "https://www.example.com"
TEXTS = {
    "locked": (
        "Your account is temporarily locked",
        "Several wrong passwords were entered. You can still sign in from a device that you have used before.",
    ),
    "new_device": ("New sign-in from an unknown device", "From {client}. If that was not you: {page}/help"),
    "unlocked": ("Your account was unlocked", "{actor} unlocked it: {reason}"),
    "factor_reset": ("Your two-factor authentication was reset", "{actor} reset it: {reason}"),
    "password_changed": ("Your password was changed", "If that was not you: {page}/help"),
    "reset_requested": ("Reset your password", "{page}/reset?token={token}"),
    "email_change_requested": ("Confirm your email address", "{page}/address?token={token}"),
    "email_changed": ("Your email address was changed", "If that was not you: {page}/help"),
}


def by_mail(tasks: Tasks, mail: MailTask) -> Callable[[SignInNotice], None]:
    """Return a function for on_notice= of SignIn that enqueues a task: no response waits for a mail server."""

    def put_into_queue(notice: SignInNotice) -> None:
        subject, text = TEXTS[notice.kind]
        filled = text.format(
            page=PAGE,
            token=notice.token,
            actor=notice.actor,
            reason=notice.reason,
            client=notice.client,
        )
        with tasks.begin() as connection:
            mail.enqueue(connection, to=notice.to, subject=subject, text=filled)

    return put_into_queue


if __name__ == "__main__":
    tasks = Tasks(hardened_engine("sqlite:///app.db"))
    tasks.create_table()
    tell = by_mail(tasks, MailTask(tasks, "smtp.example.com", from_addr="security@example.com"))
    tanaka = SignInAccount(user_id="7", name="tanaka", email="tanaka@example.com", password_hash=None)
    tell(SignInNotice(kind="locked", account=tanaka, to=tanaka.email))
