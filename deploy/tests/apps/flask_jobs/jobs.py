"""Jobs: a small Flask application that somebody else wrote, with PostgreSQL, Redis and Celery."""

import os
import sys
import time

import kombu
import psycopg
import redis
from celery import Celery
from flask import Flask, request

DATABASE = os.environ["DATABASE_URL"]
counts = redis.Redis.from_url(os.environ["REDIS_URL"])
app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
tasks = Celery("jobs", broker=os.environ["CELERY_BROKER_URL"])
tasks.conf.update(
    task_ignore_result=True,
    beat_schedule={"tick": {"task": "jobs.tick", "schedule": 2.0}},
)


def connect():
    return psycopg.connect(DATABASE, connect_timeout=5)


@app.errorhandler(psycopg.OperationalError)
@app.errorhandler(redis.ConnectionError)
@app.errorhandler(kombu.exceptions.OperationalError)
def unavailable(error):
    return "a server is away", 503, {"Retry-After": "2"}


@tasks.task(name="jobs.double", acks_late=True, autoretry_for=(psycopg.OperationalError,), max_retries=10)
def double(number):
    with connect() as database:
        database.execute("UPDATE jobs SET result = number * 2 WHERE number = %s", (number,))


@tasks.task(name="jobs.tick")
def tick():
    counts.incr("jobs-ticks")


@app.post("/jobs")
def add():
    number = int(request.form["text"])
    with connect() as database:
        database.execute("INSERT INTO jobs (number) VALUES (%s) ON CONFLICT DO NOTHING", (number,))
    double.delay(number)
    return "taken"


@app.get("/jobs/<int:number>")
def job(number):
    with connect() as database:
        found = database.execute("SELECT result FROM jobs WHERE number = %s", (number,)).fetchone()
    return str(found[0] if found else None)


@app.get("/ticks")
def ticks():
    return str(int(counts.get("jobs-ticks") or 0))


@app.get("/slow")
def slow():
    with connect() as database:
        database.execute("SELECT 1")
    counts.incr("jobs-asked")
    time.sleep(0.02)
    return "slept"


@app.get("/healthz")
def healthz():
    with connect() as database:
        database.execute("SELECT count(*) FROM jobs")
    return "ok"


def migrate():
    with connect() as database:
        database.execute("CREATE TABLE IF NOT EXISTS jobs (number bigint PRIMARY KEY, result bigint)")


if __name__ == "__main__" and sys.argv[1:] == ["migrate"]:
    migrate()
