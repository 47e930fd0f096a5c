from dataclasses import replace

from flask import Flask, abort, jsonify, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    MemorySignInStore,
    MemoryTwoFactorStore,
    RateLimiter,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    TwoFactorManager,
    hash_password,
)
from mks_hardening.settings import HardeningSettings


class Accounts:  # over the table of users
    def __init__(self, *accounts):
        self.rows = {account.user_id: account for account in accounts}

    def find(self, name, /):
        return next((account for account in self.rows.values() if account.name == name), None)

    def get(self, user_id, /):
        return self.rows.get(user_id)

    def set_password(self, user_id, stored, /, *, expected):
        if self.rows[user_id].password_hash != expected:
            return False
        self.rows[user_id] = replace(self.rows[user_id], password_hash=stored)
        return True


class User(UserMixin):
    def __init__(self, user_id):
        self.id = user_id


CHALLENGE = "__Host-challenge"

app = Flask(__name__)
hardening = Hardening(app, HardeningSettings.from_env(environ={"MKS_ENV": "development"}))
logins = LoginManager(app)
logins.user_loader(lambda user_id: User(user_id) if accounts.get(user_id) else None)
accounts = Accounts(SignInAccount(user_id="7", name="tanaka", password_hash=hash_password("坂の上の 足場")))
factors = TwoFactorManager(
    MemoryTwoFactorStore(), issuer="Knowledge", secret_box=SecretBox(SecretBox.generate_key())
)
sign_in = SignIn(
    accounts,
    store=MemorySignInStore(),
    limiter=RateLimiter(SIGN_IN_LIMITS),
    factors=factors,
    end_sessions=app.extensions["mks_hardening"].sessions.end_user,
)


def settle(step):
    """The one place where a sign-in ends."""
    if step.state == "challenged":  # nobody is signed in yet
        answer = jsonify(next="second factor")
        # Not in flask.session: that would begin a session, and the challenge is bound to the one it was given to.
        answer.set_cookie(CHALLENGE, step.challenge, max_age=300, secure=True, httponly=True, samesite="Lax")
        return answer
    if not step:
        abort(401)
    # Sets session["_user_id"]; without Flask-Login it is session["user_id"] = step.user_id.
    login_user(User(step.user_id))
    answer = jsonify(user=current_user.id, amr=step.amr)
    answer.delete_cookie(CHALLENGE, secure=True, httponly=True, samesite="Lax")
    return answer


def facts():
    origin = request.environ["mks_hardening.origin"]
    return {
        "client": SignInClient(address=origin.client_ip),
        "session": request.environ["mks_hardening.session"],
    }


@app.post("/sign-in")
def password():
    return settle(sign_in.password(request.form["name"], request.form["password"], **facts()))


@app.post("/second-factor")
def second_factor():
    return settle(sign_in.second_factor(request.cookies.get(CHALLENGE, ""), request.form["code"], **facts()))


@app.get("/")
@login_required
def home():
    recent = sign_in.confirmed_within(request.environ["mks_hardening.session"], 300)
    return {"user": current_user.id, "may change the password": recent}


@app.post("/sign-out")
def sign_out():
    logout_user()  # takes session["_user_id"] out: ours ends, on the server too
    return {}
