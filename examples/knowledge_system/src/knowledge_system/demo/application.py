"""The application as the demonstration runs it: with pages that make trouble and a clock that can be moved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from knowledge_system.app import create_app
from knowledge_system.demo.clock import MovableClock, clock_file
from knowledge_system.demo.pages import pages
from knowledge_system.settings import AppSettings

if TYPE_CHECKING:
    from flask import Flask

    from mks_hardening.protocols import Clock

__all__ = ["create_demo_app", "from_env"]


def create_demo_app(settings: AppSettings, *, clock: Clock = time) -> Flask:
    """The application, the demonstration's own pages, and sessions that live by a clock of their own."""
    moved = MovableClock(clock, file=clock_file(settings.data_dir))
    app = create_app(settings, clock=clock, session_clock=moved)
    app.register_blueprint(pages)
    return app


def from_env() -> Flask:
    """The demonstration as the environment says, for gunicorn."""
    app = create_demo_app(AppSettings.from_env())
    app.extensions["knowledge"].serve()
    return app
