from flask import Flask, redirect

from mks_hardening.contrib.flask_app import Hardening, current_session
from mks_hardening.settings import HardeningSettings

app = Flask(__name__)
Hardening(app, HardeningSettings.from_env(environ={"MKS_ENV": "development"}))  # from_env() in production

users = {("https://id.example.com", "24400320"): "7"}  # a table: issuer and subject, and the user


def verified_claims():
    """With Authlib: ``oauth.provider.authorize_access_token()["userinfo"]``; checks state, nonce and signature."""
    return {"iss": "https://id.example.com", "sub": "24400320", "email": "tanaka@example.com"}


@app.get("/callback")
def callback():
    claims = verified_claims()
    user_id = users[claims["iss"], claims["sub"]]  # never the e-mail address: it may change hands
    current_session().start(user_id)  # a new id; the session of the visitor ends
    return redirect("/")


@app.get("/")
def page():
    return {"user": current_session().user_id}


@app.post("/sign-out")
def sign_out():
    current_session().end()
    return redirect("/")


if __name__ == "__main__":
    browser = app.test_client()
    print("before:", browser.get("/").json)
    browser.get("/callback")
    print("after the callback:", browser.get("/").json)
    copied = {"Cookie": f"mks-session={browser.get_cookie('mks-session').value}"}
    browser.post("/sign-out", headers={"Origin": "http://localhost"})
    print(
        "a copy of the cookie after sign-out:",
        app.test_client(use_cookies=False).get("/", headers=copied).status_code,
    )
