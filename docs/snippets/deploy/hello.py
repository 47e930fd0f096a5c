"""An application of your own: it signs its cookies, and believes nginx about the client and HTTPS."""

import os

from flask import Flask, redirect, request, session, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]


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
