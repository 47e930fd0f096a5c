"""Applications for real servers in the session tests: several processes over one Redis, named by SESSIONS_URL."""

from __future__ import annotations

import os

import wsgi_session_apps as apps
from mks_hardening.wsgi import RedisSessionStore, RequestLoggingMiddleware, SessionTimeoutMiddleware

log: apps.Log = []
store = RedisSessionStore(os.environ["SESSIONS_URL"], store_budget=2.0)
application = RequestLoggingMiddleware(
    SessionTimeoutMiddleware(
        apps.bare(log),
        store=store,
        sign_in_url="/sign-in",
        max_sessions=3,
        passive_paths=["/poll"],
        idle_timeout=60,
    )
)
