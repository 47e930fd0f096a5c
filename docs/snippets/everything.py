from mks_hardening.compose import harden_wsgi, setup_logging_with_notifications
from mks_hardening.settings import HardeningSettings

settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"})  # or os.environ
setup_logging_with_notifications(settings)


def app(environ, start_response):
    session = environ["mks_hardening.session"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(session.user_id or "nobody").encode()]


app = harden_wsgi(app, settings, sign_in_url="/sign-in")
