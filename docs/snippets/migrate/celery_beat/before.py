from celery import Celery
from celery.schedules import crontab

app = Celery("reports", broker="memory://")
app.conf.timezone = "Asia/Tokyo"
app.conf.beat_schedule = {
    "nightly": {"task": "reports.nightly", "schedule": crontab(hour="2", minute="30")},
    "weekly": {"task": "reports.weekly", "schedule": crontab(hour="8", minute="0", day_of_week="mon")},
}
sent = []


@app.task(name="reports.monthly")
def monthly(month):
    sent.append(month)


@app.task(name="reports.upload", autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=2)
def upload(failures):
    sent.append("attempt")
    if sent.count("attempt") <= failures:
        raise ConnectionError("storage")


@app.task(name="reports.nightly")
def nightly():
    sent.append("nightly")


@app.task(name="reports.weekly")
def weekly():
    sent.append("weekly")


def request_report(_connection, month):
    monthly.delay(month)


def request_upload(_connection, failures):
    upload.delay(failures)
