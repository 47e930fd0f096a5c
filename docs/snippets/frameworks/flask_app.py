from flask import Flask, Response, flash, get_flashed_messages, request, session, stream_with_context

from mks_hardening.contrib.flask_app import Hardening, current_session, limit
from mks_hardening.settings import HardeningSettings

app = Flask(__name__)
Hardening(app, HardeningSettings.from_env(), sign_in_url="/sign-in")


@app.post("/sign-in")
@limit("auth_login")  # by user, or by address where nobody is signed in
def sign_in():
    session["user_id"] = request.form["name"]  # after the password was checked: gives the session a new id
    flash("welcome")
    return ""


@app.post("/sign-out")
def sign_out():
    session.clear()  # dead on the server too
    return ""


@app.get("/basket/<item>")
def basket(item):
    session.setdefault("basket", []).append(item)  # also of those who are not signed in
    return {"user": session.get("user_id"), "basket": session["basket"], "messages": get_flashed_messages()}


@app.post("/second-factor")
def second_factor():
    session["second_factor"] = True  # after the code was checked
    current_session().rotate()
    return ""


@app.get("/stream")
def stream():
    return Response(stream_with_context(f"{session['user_id']} {part}\n" for part in range(3)))
