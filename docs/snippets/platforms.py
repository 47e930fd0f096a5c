from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import ProxyTrust, TrustedProxyMiddleware


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}".encode()]


MADE_UP = "198.51.100.66"  # a header that the client sent, to appear under another address
CLIENT, CDN, LOAD_BALANCER = "203.0.113.5", "192.0.2.40", "10.0.3.7"
FROM_BALANCER = {"X-Forwarded-For": f"{MADE_UP}, {CLIENT}", "X-Forwarded-Proto": "https"}
FROM_BOTH = {"X-Forwarded-For": f"{MADE_UP}, {CLIENT}, {CDN}", "X-Forwarded-Proto": "https"}
for name, headers, options in [
    ("load balancer, counted", FROM_BALANCER, {"hops": 1}),
    ("load balancer, by network", FROM_BALANCER, {"trusted_proxies": ["10.0.0.0/16"]}),
    ("CDN and load balancer, by network", FROM_BOTH, {"trusted_proxies": ["10.0.0.0/16", "192.0.2.0/24"]}),
    ("WRONG: two counted, one there", FROM_BALANCER, {"hops": 2}),
]:
    hardened = TrustedProxyMiddleware(app, trust=ProxyTrust(**options))
    response = call_wsgi(hardened, headers=headers, environ={"REMOTE_ADDR": LOAD_BALANCER})
    print(f"{name}: {response.body.decode()}")
