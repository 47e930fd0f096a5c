import logging

from mks_hardening.notify import AlertPolicy, EmailNotificationHandler

alerts = EmailNotificationHandler(
    "127.0.0.1",
    smtp_port=2525,
    security="plain",  # allowed to this machine only; "starttls" elsewhere
    from_addr="alerts@example.com",
    to_addrs=["ops@example.com"],
    policy=AlertPolicy(dedup_window=300),
    spool="spool",
)
logging.getLogger().addHandler(alerts)
logging.getLogger().error("the crane does not answer")  # never waits for the mail server
