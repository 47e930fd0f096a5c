from wsgiref.simple_server import demo_app

from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import HeaderPolicy, RequestLoggingMiddleware, SecurityHeadersMiddleware

app = SecurityHeadersMiddleware(RequestLoggingMiddleware(demo_app), policy=HeaderPolicy.web())
response = call_wsgi(app, scheme="https")
assert response.status == 200
assert response.header("X-Content-Type-Options") == "nosniff"
