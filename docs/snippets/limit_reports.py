from mks_hardening.compose import harden_wsgi
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import ConcurrencyRule, RequestTimeoutRule, limit_by_address, request_deadline


def application(environ, start_response):
    timeout = request_deadline(environ).timeout(at_most=5)  # for requests.get(..., timeout=timeout)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{timeout:.0f} s for the call of another service".encode()]


limiter = ConcurrencyLimiter({"client": 10, "reports": 2})
app = harden_wsgi(
    application,
    HardeningSettings.from_env(environ={"MKS_ENV": "development", "MKS_REQUEST_TIMEOUT": "3s"}),
    concurrency_limiter=limiter,
    concurrency_rules=[
        ConcurrencyRule("client", key=limit_by_address),
        ConcurrencyRule("reports", path="/reports/"),
    ],
    timeout_rules=[RequestTimeoutRule("/reports/", 120)],
)
for path in ("/", "/reports/7"):
    print(call_wsgi(app, path, headers={"Host": "localhost"}).body.decode())
