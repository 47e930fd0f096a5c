from flask import Flask, abort, render_template_string
from flask_talisman import Talisman

app = Flask(__name__)
Talisman(
    app,
    content_security_policy={"default-src": "'self'", "script-src": ["'self'", "https://cdn.example.com"]},
    content_security_policy_nonce_in=["script-src"],
    frame_options="DENY",
    strict_transport_security_max_age=63072000,
)


@app.get("/")
def page():
    return render_template_string('<script nonce="{{ csp_nonce() }}"></script>')


@app.get("/broken")
def broken():
    abort(500)
