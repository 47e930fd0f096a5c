from flask import Flask, abort, render_template_string

from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import HSTS, ContentSecurityPolicy, HeaderPolicy

POLICY = ContentSecurityPolicy(
    {"default-src": "'self'", "script-src": ["'self'", "https://cdn.example.com"]}, nonce=True
)

app = Flask(__name__)
Hardening(
    app,
    HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"}),  # from_env() in production
    headers=HeaderPolicy.web(hsts=HSTS(63072000), csp=POLICY),
)


@app.get("/")
def page():
    return render_template_string('<script nonce="{{ csp_nonce() }}"></script>')


@app.get("/broken")
def broken():
    abort(500)
