"""A Flask application that reads no forwarding field, with a form, a style and server-sent events."""

import threading

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from mks_hardening.wsgi import ProxyTrust, TrustedProxyMiddleware

PAGE = """<!doctype html><title>Sign in</title><link rel="stylesheet" href="/style.css"><style>p{color:#030}</style>
<form method="post" action="/sign-in"><input name="name"><button style="color:#300">Sign in</button></form>
<script>document.title = "ready"</script>
"""

app = Flask(__name__)
more = threading.Event()


@app.get("/")
def page():
    return PAGE


@app.get("/style.css")
def style():
    return Response("form{margin:1em}", content_type="text/css")


@app.get("/favicon.ico")
def icon():
    return "", 204


@app.post("/sign-in")
def sign_in():
    return f"hello {request.form['name']}"


@app.get("/who")
def who():
    return f"{request.remote_addr} {request.scheme} {request.host}"


@app.route("/fields", methods=["GET", "POST"])
def fields():
    return " ".join(sorted(name for name in request.environ if name.startswith("HTTP_")))


@app.route("/events", methods=["GET", "POST"])
@app.get("/api/parts")
def events():
    more.clear()

    def parts():
        yield "data: first\n\n"
        more.wait(30)
        yield "data: second\n\n"

    kind = "text/plain" if request.path == "/api/parts" else "text/event-stream"
    return Response(parts(), content_type=kind)


@app.post("/more")
def go_on():
    more.set()
    return "on"


@app.get("/readyz")
def readyz():
    return "ok"


@app.get("/start")
def start():
    return PAGE


@app.get("/sign-in")
def sign_in_page():
    return PAGE


def incomplete(environ, start_response):
    """Serve no style, and one page with a link to it."""
    if environ["PATH_INFO"] in {"/", "/style.css"}:
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"missing"]
    return app(environ, start_response)


def redirecting(environ, start_response):
    if environ["PATH_INFO"] == "/":
        start_response("302 Found", [("Location", "/start?next=/")])
        return []
    return app(environ, start_response)


def linking(environ, start_response):
    if environ["PATH_INFO"] == "/":
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [
            b'<!doctype html><title>Shop</title><a class="link" href="/sign-in?next=%2F&amp;x=1">Sign in</a>'
        ]
    return app(environ, start_response)


fixed = ProxyFix(app, x_for=1, x_proto=1, x_host=1)
trusting = TrustedProxyMiddleware(app, trust=ProxyTrust(["unix"]))
