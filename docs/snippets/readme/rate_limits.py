from mks_hardening.security import RateLimiter

limiter = RateLimiter({"sign_in": "5 per minute, 20 per hour"})
decisions = [limiter.hit("sign_in", "203.0.113.9") for _ in range(6)]
print([bool(decision) for decision in decisions], decisions[-1].retry_after > 0)
# -> [True, True, True, True, True, False] True
