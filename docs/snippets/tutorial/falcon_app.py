from wsgiref.simple_server import make_server

import falcon

from mks_hardening.compose import harden_wsgi
from mks_hardening.logging import setup_logging
from mks_hardening.settings import HardeningSettings

PAGE = """<!doctype html><title>Note</title>
<form method="post">
  <input name="note"><input type="hidden" name="csrf_token" value="{token}"><button>Save</button>
</form>
"""


class Note:
    def on_get(self, request, response):
        request.env["mks_hardening.route"] = request.uri_template  # for the request record
        response.content_type = falcon.MEDIA_HTML
        response.text = PAGE.format(token=request.env["mks_hardening.csrf_token"])

    def on_post(self, request, response):
        request.env["mks_hardening.route"] = request.uri_template
        response.content_type = falcon.MEDIA_TEXT
        response.text = f"saved {len(request.get_media()['note'])} characters"


falcon_app = falcon.App()
falcon_app.add_route("/", Note())

logger = setup_logging("notes")
app = harden_wsgi(falcon_app, HardeningSettings.from_env())

if __name__ == "__main__":  # in production, gunicorn imports this file and uses ``app``
    with make_server("127.0.0.1", 8000, app) as server:
        logger.info("open http://localhost:8000/")
        server.serve_forever()
