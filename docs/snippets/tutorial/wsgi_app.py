from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

from mks_hardening.compose import harden_wsgi
from mks_hardening.logging import setup_logging
from mks_hardening.settings import HardeningSettings

PAGE = """<!doctype html><title>Note</title>
<form method="post">
  <input name="note"><input type="hidden" name="csrf_token" value="{token}"><button>Save</button>
</form>
"""


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        return [f"saved {len(parse_qs(body)[b'note'][0])} bytes".encode()]
    return [PAGE.format(token=environ["mks_hardening.csrf_token"]).encode()]


logger = setup_logging("notes")
app = harden_wsgi(app, HardeningSettings.from_env())

if __name__ == "__main__":  # in production, gunicorn imports this file and uses ``app``
    with make_server("127.0.0.1", 8000, app) as server:
        logger.info("open http://localhost:8000/")
        server.serve_forever()
