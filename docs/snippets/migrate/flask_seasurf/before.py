from flask import Flask, render_template_string
from flask_seasurf import SeaSurf

app = Flask(__name__)
app.config.update(SECRET_KEY="from your secret store", CSRF_COOKIE_SECURE=True, CSRF_COOKIE_HTTPONLY=True)
csrf = SeaSurf(app)

TOKEN_FIELD, TOKEN_HEADER = "_csrf_token", "X-CSRFToken"


@app.get("/")
def form():
    return render_template_string("{{ csrf_token() }}")


@app.post("/save")
def save():
    return "saved"


@csrf.exempt
@app.post("/hook")
def hook():
    return "received"
