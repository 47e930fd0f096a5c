from flask import Flask, request

from mks_hardening.contrib.flask_app import Hardening, limit
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import GroupChoice

app = Flask(__name__)
Hardening(
    app,
    HardeningSettings.from_env(environ={"MKS_ENV": "development"}),  # from_env() in production
    groups={
        "everything": "100 per hour",
        "sign_in": "3 per minute; 20 per hour",
        "upload": "10 per minute",
        "confirm": "3 per minute",
        "free": "1 per minute",
        "team": "3 per minute",
    },
)
limit("everything")(app)  # in front of every view; /livez is answered before any limit


@app.post("/sign-in")
@limit("sign_in")
def sign_in():
    return "welcome"


@app.post("/upload")
@limit("upload", cost=5)
def upload():
    return "kept"


@app.post("/confirm")
@limit("confirm", final_cost=lambda response: response.status == 401)
def confirm():
    return "", 200 if request.headers["X-Code"] == "right" else 401


@app.post("/report")
@limit(GroupChoice(lambda: request.headers["X-Plan"], groups=["free", "team"], fallback="free"))
def report():
    return "a report"
