from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import GroupChoice, RateLimitMiddleware, RateLimitRule

PLANS = {"key-of-example-com": "team"}


def sign_in(environ, start_response):
    right = environ["QUERY_STRING"] == "right"
    start_response("200 OK" if right else "401 Unauthorized", [("Content-Type", "text/plain")])
    return []


def plan(environ):
    return PLANS[environ["HTTP_X_API_KEY"]]  # an unknown key raises KeyError


def failed(_environ, response):
    return response.status == 401


limiter = RateLimiter({"free": "2 per minute", "team": "100 per minute", "sign_in": "3 per minute"})
by_plan = RateLimitRule(GroupChoice(plan, groups=["free", "team"], fallback="free"), path="/api/")
failures = RateLimitRule("sign_in", path="/sign-in", methods=["POST"], final_cost=failed)
app = RateLimitMiddleware(sign_in, limiter=limiter, rules=[by_plan, failures])


def post(query):
    return call_wsgi(app, "/sign-in", method="POST", query=query).status


assert [post("right") for _ in range(9)] == [200] * 9
assert [post("wrong") for _ in range(3)] == [401] * 3
assert post("right") == 429  # refused before the password is checked

key = {"X-API-Key": "key-of-example-com"}
assert 429 not in [call_wsgi(app, "/api/", headers=key).status for _ in range(9)]
assert [call_wsgi(app, "/api/").status for _ in range(3)] == [401, 401, 429]
