import logging

from mks_hardening.notify import SlackNotificationHandler

alerts = SlackNotificationHandler("https://127.0.0.1:9/services/T0/B0/x", spool="spool")
logging.getLogger().addHandler(alerts)
logging.getLogger("crane").error("the crane does not answer")  # microseconds: nobody waits for Slack
alerts.close()
print(alerts.stats().logged, alerts.stats().spooled)
# -> 1 1
