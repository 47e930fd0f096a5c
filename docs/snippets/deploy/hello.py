"""An application of your own, which signs its cookies."""

import os

from flask import Flask, redirect, request, session, url_for
from werkzeug.wrappers import Response

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]


@app.get("/")
def index() -> str:
    return f"Hello, {session.get('name', 'you')}"


@app.post("/name")
def set_name() -> Response:
    session["name"] = request.form["name"]
    return redirect(url_for("index"), code=303)


@app.get("/healthz")
def healthz() -> str:
    return "ok"
