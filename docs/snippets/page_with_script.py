from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CSP_NONCE_KEY, ContentSecurityPolicy, HeaderPolicy, SecurityHeadersMiddleware


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [f'<script nonce="{environ[CSP_NONCE_KEY]}">document.title = "ready"</script>'.encode()]


csp = ContentSecurityPolicy(
    {"default-src": "'self'", "object-src": "'none'", "base-uri": "'none'"}, nonce=True
)
app = SecurityHeadersMiddleware(app, policy=HeaderPolicy.web(csp=csp))

if __name__ == "__main__":
    response = call_wsgi(app, scheme="https")
    sent = response.header("Content-Security-Policy")
    scripts = next(part for part in sent.split("; ") if part.startswith("script-src"))
    print(scripts)
    nonce = scripts.rpartition("nonce-")[2].strip("'")
    print("the page has the nonce:", f'nonce="{nonce}"'.encode() in response.body)
