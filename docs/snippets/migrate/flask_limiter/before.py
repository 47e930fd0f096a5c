from flask import Flask, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    default_limits=["100 per hour"],
    storage_uri="memory://",
    strategy="moving-window",
    headers_enabled=True,
)


@app.post("/sign-in")
@limiter.limit("3 per minute; 20 per hour")
def sign_in():
    return "welcome"


@app.post("/upload")
@limiter.limit("10 per minute", cost=lambda: int(request.headers["X-Files"]))
def upload():
    return "kept"


@app.post("/confirm")
@limiter.limit("3 per minute", deduct_when=lambda response: response.status_code == 401)
def confirm():
    return "", 200 if request.headers["X-Code"] == "right" else 401


@app.post("/report")
@limiter.limit(lambda: {"free": "1 per minute", "team": "3 per minute"}[request.headers["X-Plan"]])
def report():
    return "a report"


@app.get("/livez")
@limiter.exempt
def livez():
    return "ok"
