from werkzeug.middleware.dispatcher import DispatcherMiddleware

from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionCookie

settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"})


def application(name):
    def app(environ, start_response):
        session = environ["mks_hardening.session"]
        if environ["PATH_INFO"] == "/sign-in":
            session.start("tanaka")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{name}: {session.user_id}".encode()]

    return harden_wsgi(
        app,
        settings,
        store=MemorySessionStore(),  # RedisSessionStore(url, namespace=f"{name}:sessions")
        cookie=SessionCookie(f"__Host-{name}"),
    )


site = DispatcherMiddleware(application("shop"), {"/wiki": application("wiki")})

if __name__ == "__main__":
    host = {"Host": "www.example.com"}
    cookie = call_wsgi(site, "/sign-in", headers=host, scheme="https").header("Set-Cookie").partition(";")[0]
    print(cookie.partition("=")[0])
    for path in ("/", "/wiki/"):
        print(call_wsgi(site, path, headers={**host, "Cookie": cookie}, scheme="https").body.decode())
