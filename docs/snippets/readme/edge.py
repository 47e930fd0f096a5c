from wsgiref.simple_server import demo_app

from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi

app = harden_wsgi(demo_app, HardeningSettings.from_env(environ={"MKS_ENV": "development"}))
print(call_wsgi(app).status, call_wsgi(app).header("X-Frame-Options"))
# -> 200 DENY
