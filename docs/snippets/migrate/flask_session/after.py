import msgspec
from flask import Flask, request, session

from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import RedisSessionStore

OLD_COOKIE, OLD_PREFIX = "session", "session:"
KEPT = ("user_id", "basket")  # what is worth carrying over, and small


def create_app(redis):
    app = Flask(__name__)
    here = {"MKS_ALLOWED_HOSTS": "localhost", "MKS_STORE_BUDGET": "1s"}
    settings = HardeningSettings.from_env(environ=here)  # from_env() in production, with 100 ms
    Hardening(app, settings, store=RedisSessionStore(redis, store_budget=settings.core.store_budget))

    @app.before_request
    def carry_over():  # until the last old session has expired, then delete this function
        old = request.cookies.get(OLD_COOKIE)
        if old is None or len(session):
            return
        kept = redis.getdel(OLD_PREFIX + old)  # once: whoever stole the old cookie gets nothing afterwards
        if kept is not None:
            values = msgspec.msgpack.decode(kept)  # never pickle, which Flask-Session falls back to
            session.update({name: values[name] for name in KEPT if name in values})

    @app.post("/sign-in")
    def sign_in():
        session["user_id"] = "tanaka"  # after the password was checked; the session gets a new id
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
