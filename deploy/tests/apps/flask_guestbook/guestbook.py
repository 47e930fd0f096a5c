"""A guestbook: the small Flask application that somebody else wrote, without mks_hardening."""

import os
import time

from flask import Flask, redirect, request, session, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)


@app.get("/")
def index():
    return f"entries: {', '.join(session.get('entries', []))} at {url_for('index', _external=True)}"


@app.post("/sign")
def sign():
    session["entries"] = [*session.get("entries", []), request.form["name"]]
    return redirect(url_for("index"), code=303)


@app.get("/who")
def who():
    return f"{request.remote_addr} {request.scheme}"


@app.get("/slow")
def slow():
    time.sleep(0.02)
    return "slept"


@app.get("/healthz")
def healthz():
    return "ok"
