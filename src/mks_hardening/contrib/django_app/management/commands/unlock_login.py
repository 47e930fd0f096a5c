"""``manage.py unlock_login``: allow sign-ins again for a name that ``LoginLimitBackend`` refuses."""

from __future__ import annotations

from mks_hardening.contrib.django_app._django import BaseCommand, FromDjango
from mks_hardening.contrib.django_app.login_limits import unlock_login

__all__ = ["Command"]


class Command(BaseCommand):
    """Resets the limits of a name and, if given, of a client address."""

    help = "Allow sign-ins with a name again that LoginLimitBackend refuses."

    def add_arguments(self, parser: FromDjango) -> None:
        """Add name and address."""
        parser.add_argument("name", help="name of the account, as users type it")
        parser.add_argument("--address", help="also reset the limits of this client address and its network")

    def handle(self, *_: object, **options: FromDjango) -> None:
        """Reset the limits."""
        unlock_login(options["name"], address=options["address"])
        self.stdout.write("sign-ins are allowed again")
