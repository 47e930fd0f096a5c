"""A hardened Flask application whose only view does what the test specifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask

from mks_hardening.contrib.flask_app import Hardening, Installed
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore

if TYPE_CHECKING:
    from flask.testing import FlaskClient

__all__ = ["DEVELOPMENT", "Site", "settings_of"]

DEVELOPMENT: Mapping[str, str] = {"MKS_ENV": "development"}


def settings_of(**extra: str) -> HardeningSettings:
    """Return settings for this machine."""
    return HardeningSettings.from_env(environ={**DEVELOPMENT, **extra})


class Site:
    """The application, its clock and store, and a browser."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock()
        self.store = options.setdefault("store", MemorySessionStore(clock=self.clock))
        self.app = Flask(__name__)
        self.do: Callable[[], Any] = lambda: None
        self.hardening = Hardening(self.app, settings_of(), clock=self.clock, **options)
        self.parts: Installed = self.app.extensions["mks_hardening"]
        self.browser: FlaskClient = self.app.test_client()

        @self.app.route("/", methods=["GET", "POST"])
        def view() -> Any:
            answer = self.do()
            return "" if answer is None else answer

    def visit(self, do: Callable[[], Any], *, client: FlaskClient | None = None, **request: Any) -> Any:
        """One request in which the view does something."""
        self.do = do
        return (client or self.browser).get("/", **request)

    @property
    def cookie(self) -> str | None:
        """Return the browser's cookie of our session."""
        found = self.browser.get_cookie("mks-session")
        return None if found is None else found.value

    def other(self, cookie: str) -> FlaskClient:
        """Return another browser with this cookie value."""
        client = self.app.test_client()
        client.set_cookie("mks-session", cookie)
        return client
