import os

from mks_hardening.contrib.sentry_redaction import init_sentry

if dsn := os.environ.get("SENTRY_DSN"):
    init_sentry(dsn, environment="production")
