from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware


def app(environ, start_response):
    session = environ["mks_hardening.session"]
    match environ["PATH_INFO"]:
        case "/sign-in":  # after the password was checked
            session.start("alice", data={"second_factor": False})
        case "/second-factor":  # after the code was checked: a new id for new rights
            session.rotate(data={"second_factor": True})
        case "/sign-out":
            session.end()
    text = f"{session.user_id} {dict(session.data)} {session.expires_in}\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


app = SessionTimeoutMiddleware(
    app,
    store=MemorySessionStore(),  # RedisSessionStore("rediss://...") for several processes
    idle_timeout=30 * 60,
    absolute_timeout=8 * 3600,
    sign_in_url="/sign-in",
    max_sessions=5,
)
