from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Daily, Tasks

engine = hardened_engine("sqlite:///reports.db")
tasks = Tasks(engine)
tasks.create_table()
sent = []


@tasks.task("reports.monthly")
def monthly(_run, month: str):
    sent.append(month)


@tasks.task("reports.upload", max_attempts=3)
def upload(_run, failures: int):
    sent.append("attempt")
    if sent.count("attempt") <= failures:
        raise ConnectionError("storage")


@tasks.task("reports.nightly", schedule=Daily(2, 30, zone="Asia/Tokyo"))
def nightly(_run):
    sent.append("nightly")


@tasks.task("reports.weekly", schedule=Daily(8, 0, weekday=0, zone="Asia/Tokyo"))
def weekly(_run):
    sent.append("weekly")


def request_report(connection, month):
    monthly.using(key=month).enqueue(connection, month)


def request_upload(connection, failures):
    upload.enqueue(connection, failures)
