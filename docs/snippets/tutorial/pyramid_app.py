from wsgiref.simple_server import make_server

from pyramid.config import Configurator
from pyramid.response import Response

from mks_hardening.compose import harden_wsgi
from mks_hardening.logging import setup_logging
from mks_hardening.settings import HardeningSettings

PAGE = """<!doctype html><title>Note</title>
<form method="post">
  <input name="note"><input type="hidden" name="csrf_token" value="{token}"><button>Save</button>
</form>
"""


def note(request):
    request.environ["mks_hardening.route"] = request.matched_route.pattern  # for the request record
    if request.method == "POST":
        return Response(f"saved {len(request.POST['note'])} characters")
    return Response(PAGE.format(token=request.environ["mks_hardening.csrf_token"]))


with Configurator() as config:
    config.add_route("note", "/")
    config.add_view(note, route_name="note")
    app = config.make_wsgi_app()

logger = setup_logging("notes")
app = harden_wsgi(app, HardeningSettings.from_env())

if __name__ == "__main__":  # in production, gunicorn imports this file and uses ``app``
    with make_server("127.0.0.1", 8000, app) as server:
        logger.info("open http://localhost:8000/")
        server.serve_forever()
