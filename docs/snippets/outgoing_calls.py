import asyncio

from mks_hardening.security import ConcurrencyLimiter, RateLimiter

limiter = RateLimiter({"mail": "100 per second"})
exports = ConcurrencyLimiter({"export": 2})


async def main() -> list[float]:
    """Seconds that three calls waited for their turns; in a thread it is ``limiter.pace("mail").wait()``."""
    return [await limiter.pace("mail") for _ in range(3)]


assert asyncio.run(main())[0] == 0

with exports.hold("export", "taro"), exports.hold("export", "taro"):
    assert not exports.acquire("export", "taro")
assert exports.held("export", "taro") == 0
