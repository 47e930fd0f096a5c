import sentry_sdk

from mks_hardening.contrib.sentry_redaction import SentryRedaction

clean = SentryRedaction()
sentry_sdk.init(
    before_send=clean, before_send_transaction=clean, before_breadcrumb=clean, before_send_log=clean
)
