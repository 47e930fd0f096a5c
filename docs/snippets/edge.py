from mks_hardening.wsgi import (
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    RequestLoggingMiddleware,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.url_scheme']} from {environ['REMOTE_ADDR']}\n".encode()]


app = HTTPSRedirectMiddleware(app, allowed_hosts=["www.example.com", ".example.jp"])
app = RequestLoggingMiddleware(app)
app = SecurityHeadersMiddleware(app, policy=HeaderPolicy.web())
app = TrustedProxyMiddleware(app, trust=ProxyTrust(["10.0.0.0/8"]))
