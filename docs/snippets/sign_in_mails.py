from collections.abc import Callable

from mks_hardening.db import hardened_engine
from mks_hardening.security import SignInAccount, SignInNotice
from mks_hardening.tasks import MailTask, Tasks

PAGE = "https://www.example.com"
TEXTS = {
    "locked": (
        "Your account is locked for a while",
        "Someone tried to guess your password many times. You can still sign in on a device you used before.",
    ),
    "new_device": ("New sign-in from an unknown device", "From {client}. If that was not you: {page}/help"),
    "unlocked": ("Your account is open again", "{actor} has lifted the lock: {reason}"),
    "factor_reset": ("Your second factor was taken off", "{actor} has taken it off: {reason}"),
    "password_changed": ("Your password was changed", "If that was not you: {page}/help"),
    "reset_requested": ("A new password", "{page}/reset?token={token}"),
    "email_change_requested": ("Confirm your address", "{page}/address?token={token}"),
    "email_changed": ("Your address was changed", "If that was not you: {page}/help"),
}


def by_mail(tasks: Tasks, mail: MailTask) -> Callable[[SignInNotice], None]:
    """What SignIn takes as on_notice: a row in the table of tasks, so that no answer waits for a mail server."""

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
