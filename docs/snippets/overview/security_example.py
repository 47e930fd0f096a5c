from mks_hardening.security import RateLimiter, hash_password, verify_password

stored = hash_password("correct horse battery staple")
assert verify_password("correct horse battery staple", stored)
assert not verify_password("guess", None)  # an unknown user costs the same work

limiter = RateLimiter({"sign_in": "5 per minute"})  # storage="redis://..." shares it between processes
assert [bool(limiter.hit("sign_in", "192.0.2.1")) for _ in range(6)] == [True] * 5 + [False]
