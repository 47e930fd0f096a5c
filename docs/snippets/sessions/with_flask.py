from flask import Flask, request, session

from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

app = Flask(__name__)
app.secret_key = "from your secret store"


def signed_in():
    return request.environ["mks_hardening.session"]


@app.post("/sign-in")
def sign_in():
    signed_in().start("alice")  # after the password was checked
    return "welcome"


@app.post("/sign-out")
def sign_out():
    signed_in().end()  # takes Flask's cookie back too
    return "bye"


@app.get("/basket/<item>")
def basket(item):
    # Flask's own session, kept while one is signed in. Who that is comes from our handle, never from there:
    # a signed cookie knows of no sign-out.
    session["basket"] = [*session.get("basket", []), item]
    return f"{signed_in().user_id}: {', '.join(session['basket'])}"


@app.get("/session")
def left():
    return {"expires_in": signed_in().expires_in}  # a passive path: asking does not keep alive


app.wsgi_app = SessionTimeoutMiddleware(
    app.wsgi_app,
    store=MemorySessionStore(),
    passive_paths=["/session"],
    strip_cookies=["session"],  # seen by Flask only beside a living session of ours, and ends with it
)
