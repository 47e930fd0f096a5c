"""The demo application: diagnostic pages that provoke errors, and a clock that can be advanced."""

from __future__ import annotations

import time

from flask import Flask

from knowledge_system.app import create_app, warm_up
from knowledge_system.demo.clock import MovableClock, clock_file
from knowledge_system.demo.pages import pages
from knowledge_system.settings import AppSettings
from mks_hardening.protocols import Clock


def create_demo_app(settings: AppSettings, *, clock: Clock = time) -> Flask:
    """Create the application with the demo pages and a separate clock for sessions."""
    moved = MovableClock(clock, file=clock_file(settings.data_dir))
    app = create_app(settings, clock=clock, session_clock=moved)
    app.register_blueprint(pages)
    return app


def from_env() -> Flask:
    """Create the demo application from environment variables, for gunicorn."""
    app = create_demo_app(AppSettings.from_env())
    warm_up(app)
    app.extensions["knowledge"].serve()
    return app
