from mks_hardening.asgi import HeaderPolicy, RequestLoggingMiddleware, SecurityHeadersMiddleware
from mks_hardening.testing import call_asgi


async def hello(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


app = SecurityHeadersMiddleware(RequestLoggingMiddleware(hello), policy=HeaderPolicy.web())
response = call_asgi(app, scheme="https")
assert response.status == 200
assert response.header("X-Content-Type-Options") == "nosniff"
