from flask import Flask, session
from flask_session import Session


def create_app(redis):
    app = Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis, SESSION_COOKIE_SECURE=True)
    Session(app)

    @app.post("/sign-in")
    def sign_in():
        session["user_id"] = "tanaka"  # after the password was checked
        return "welcome"

    @app.post("/basket/<item>")
    def basket(item):
        session["basket"] = [*session.get("basket", []), item]
        return f"{session.get('user_id')}: {', '.join(session['basket'])}"

    @app.post("/sign-out")
    def sign_out():
        session.clear()
        return "bye"

    return app
