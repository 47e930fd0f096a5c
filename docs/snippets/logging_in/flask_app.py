from flask import Flask

from mks_hardening.logging import setup_logging

app = Flask("knowledge")
app.logger.warning("before")  # Flask gives its logger a handler of plain text at this moment
setup_logging("knowledge")  # and from here on everything is JSON, the lines of app.logger too


@app.get("/")
def index() -> str:
    app.logger.warning("signed in with password=%s", "hunter2")
    return "ok"
