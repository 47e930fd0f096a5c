import logging

from mks_hardening.notify import SlackNotificationHandler

alerts = SlackNotificationHandler("https://127.0.0.1:9/services/T0/B0/x", spool="spool")
logger = logging.getLogger("crane")
logger.addHandler(alerts)
logger.error("the crane does not respond")  # returns at once
alerts.close()
assert alerts.stats().spooled == 1  # this Slack does not exist: the alert is kept
logger.removeHandler(alerts)
