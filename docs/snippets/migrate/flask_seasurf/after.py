from flask import Flask, render_template_string

from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.settings import HardeningSettings

app = Flask(__name__)
Hardening(
    app,
    HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"}),  # from_env() in production
    csrf_exempt_paths=["/hook"],
)

TOKEN_FIELD, TOKEN_HEADER = "csrf_token", "X-CSRF-Token"


@app.get("/")
def form():
    return render_template_string("{{ current_csrf_token() }}")


@app.post("/save")
def save():
    return "saved"


@app.post("/hook")
def hook():
    return "received"
