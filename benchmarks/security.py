"""Codes, ciphertexts, QR codes and limits beside the peers, interleaved in one run.

    python benchmarks/security.py [codes] [limits] [accuracy]

Peers that are not installed are left out. Figures are medians over interleaved rounds; ratios are to the floor
named first in each table. The Redis parts start a redis-server of their own and are left out where there is none.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mks_hardening.security import (
    Limit,
    MemoryTwoFactorStore,
    RateLimiter,
    SecretBox,
    TwoFactorManager,
    generate_recovery_codes,
    generate_secret,
    qr_code,
    totp_code,
    verify_totp,
)
from mks_hardening.security.recovery_codes import find_recovery_code, hash_recovery_code, new_salt
from mks_hardening.testing import FrozenClock

ROUNDS = 15
THREE = (Limit("minute", 50, 60.0), Limit("hour", 80, 3600.0), Limit("day", 100, 86400.0))
WIDE = (Limit("minute", 1_000_000, 60.0), Limit("hour", 1_000_000, 3600.0), Limit("day", 1_000_000, 86400.0))
GCRA_OF_THREE = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local fresh, result = {}, {}
for i = 1, 3 do
  local at = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  local spacing, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local later = at + spacing
  if later - now > burst then return {0, later - now - burst} end
  fresh[i] = later
end
for i = 1, 3 do redis.call('SET', KEYS[i], string.format('%.0f', fresh[i]), 'PX', 86400000) end
return {1, 0}
"""


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def interleaved(title: str, contenders: dict[str, Callable[[], object]], *, number: int) -> None:
    for call in contenders.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number)
    base = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"  {name:<52} {middle * 1e6:12.1f} us {middle / base:10.2f} x")


def codes() -> None:
    secret, at = generate_secret(), 1_700_000_000.0
    key = base64.b32decode(secret)
    step, right = int(at // 30), totp_code(secret, at=at)

    def floor() -> bool:
        found = False
        for near in (step - 1, step, step + 1):
            digest = hmac.digest(key, near.to_bytes(8, "big"), "sha1")
            offset = digest[-1] & 15
            code = b"%06d" % ((int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF) % 10**6)
            found |= hmac.compare_digest(code, b"000000")
        return found

    contenders: dict[str, Callable[[], object]] = {
        "three stdlib HMACs, no early exit": floor,
        "verify_totp, wrong code": lambda: verify_totp(secret, "000000", at=at),
        "verify_totp, right code": lambda: verify_totp(secret, right, at=at),
    }
    if installed("pyotp"):
        import pyotp

        other = pyotp.TOTP(secret)
        contenders["pyotp verify(valid_window=1), wrong code"] = lambda: other.verify(
            "000000", for_time=int(at), valid_window=1
        )
    interleaved("TOTP, window of one step to each side", contenders, number=200)

    salt = new_salt()
    plain = [code.replace("-", "") for code in generate_recovery_codes()]
    hashes = [hash_recovery_code(code, salt=salt) for code in plain[1:]]
    contenders = {"find_recovery_code": lambda: find_recovery_code(plain[0], hashes, salt=salt)}
    if installed("werkzeug"):
        from werkzeug.security import check_password_hash, generate_password_hash

        slow = [generate_password_hash(code) for code in plain[1:3]]
        contenders["werkzeug scrypt, two of ten codes only"] = lambda: [
            check_password_hash(one, plain[0]) for one in slow
        ]
    interleaved("A wrong recovery code", contenders, number=1)


def at_rest() -> None:
    secret, at = generate_secret(), 1_700_000_000.0
    box, clock = SecretBox([b"n" * 32, b"o" * 32]), FrozenClock(at)
    sealed = box.encrypt(secret, user_id="u", purpose="totp")
    manager = TwoFactorManager(MemoryTwoFactorStore(), issuer="MKS", secret_box=box, clock=clock)
    mine = manager.begin_enrolment("u", account_name="a").secret
    manager.confirm_enrolment("u", totp_code(mine, at=at))
    replay = totp_code(mine, at=at)
    contenders = {
        "SecretBox.decrypt": lambda: box.decrypt(sealed, user_id="u", purpose="totp"),
        "TwoFactorManager.verify in memory, a replay": lambda: manager.verify("u", replay),
        "TwoFactorManager.verify in memory, malformed": lambda: manager.verify("u", ""),
        "TwoFactorManager.status in memory": lambda: manager.status("u"),
    }
    with contextlib.suppress(ImportError):
        from cryptography.fernet import Fernet, MultiFernet

        fernet = MultiFernet([Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())])
        token = fernet.encrypt(secret.encode())
        contenders["MultiFernet.decrypt, first of two keys"] = lambda: fernet.decrypt(token)
    interleaved("Secrets at rest and the whole of a verification", contenders, number=50)


def qr_codes() -> None:
    uri = f"otpauth://totp/MKS:taro@example.jp?secret={generate_secret()}&issuer=MKS"
    print("\nQR code of one URI (bytes of the data URI)")
    for kind in ("png", "svg"):
        print(f"  ours, {kind:<46} {len(qr_code(uri, kind=kind)):12} bytes")
    contenders = {"ours, png": lambda: qr_code(uri), "ours, svg": lambda: qr_code(uri, kind="svg")}
    if installed("png"):
        import io

        import qrcode
        from qrcode.image.pure import PyPNGImage
        from qrcode.image.svg import SvgPathImage

        def peer(factory: object) -> bytes:
            stream = io.BytesIO()
            qrcode.make(uri, image_factory=factory).save(stream)
            return stream.getvalue()

        for factory in (PyPNGImage, SvgPathImage):
            print(f"  qrcode {factory.__name__:<45} {len(base64.b64encode(peer(factory))):12} bytes")
            contenders[f"qrcode {factory.__name__}"] = lambda factory=factory: peer(factory)
    interleaved("QR code of one URI", contenders, number=1)


def limits_in_memory() -> None:
    lock, counts = threading.Lock(), {}

    def floor() -> None:
        with lock:
            counts["k"] = counts.get("k", 0) + 1

    contenders: dict[str, Callable[[], object]] = {"lock and dict increment": floor}
    for strategy in ("exact-window", "sliding-window", "fixed-window", "gcra"):
        three = THREE if strategy == "exact-window" else WIDE  # what it is for: small quotas, mostly full
        for name, group in (("1 limit", three[:1]), ("3 limits", three)):
            one = RateLimiter({"g": group}, strategy=strategy)
            contenders[f"ours, {strategy}, {name}"] = lambda one=one: one.hit("g", "k")
    if installed("limits"):
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        items = [parse(text) for text in ("1000000/minute", "1000000/hour", "1000000/day")]
        small = [parse(text) for text in ("50/minute", "80/hour", "100/day")]
        for kind, three in ((FixedWindowRateLimiter, items), (MovingWindowRateLimiter, small)):
            strategy = kind(MemoryStorage())
            for name, group in (("1 limit", three[:1]), ("3 limits", three)):
                contenders[f"limits {kind.__name__}, {name}"] = lambda s=strategy, g=group: [
                    s.hit(item, "k") for item in g
                ]
    interleaved("One hit in memory", contenders, number=300)


def limits_in_redis(url: str) -> None:
    import redis

    client = redis.Redis.from_url(url)
    script = client.register_script(GCRA_OF_THREE)
    spaced = [part for limit in WIDE for part in (60, limit.window * 1_000_000)]
    contenders: dict[str, Callable[[], object]] = {
        "raw Lua, three GCRA cells, one trip": lambda: script(keys=["{f}1", "{f}2", "{f}3"], args=spaced),
        "PING": client.ping,
    }
    opened = []
    for strategy, group in (("exact-window", THREE), ("sliding-window", WIDE), ("gcra", WIDE)):
        one = RateLimiter({"g": group}, storage=url, strategy=strategy, namespace=strategy, store_budget=5)
        opened.append(one)
        contenders[f"ours, {strategy}, 3 limits with header data"] = lambda one=one: one.hit("g", "k")
    with contextlib.suppress(ImportError):
        from limits import parse
        from limits.storage import RedisStorage
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        items = [parse(text) for text in ("1000000/minute", "1000000/hour", "1000000/day")]
        for kind in (FixedWindowRateLimiter, MovingWindowRateLimiter):
            strategy = kind(RedisStorage(url))
            name = kind.__name__
            contenders[f"limits {name}, 3 limits"] = lambda s=strategy, n=name: [s.hit(i, n) for i in items]
            contenders[f"limits {name}, 3 limits with stats"] = lambda s=strategy, n=name: [
                (s.hit(i, n), s.get_window_stats(i, n)) for i in items
            ]
    interleaved("One hit in Redis on loopback", contenders, number=40)
    for one in opened:
        one.close()
    client.close()


def worst_period(hits: list[float], period: float) -> int:
    return max((sum(at <= other < at + period for other in hits) for at in hits), default=0)


def edge(try_one: Callable[[], object], *, period: float) -> int:
    """The most hits in any one period, hammered without pause for three of them."""
    hits = []
    end = time.perf_counter() + 3 * period
    while time.perf_counter() < end:
        before = time.perf_counter()
        if try_one():
            hits.append(before)
        time.sleep(period / 400)
    return worst_period(hits, period * 0.99)


def accuracy(url: str) -> None:
    print("\nHits in the worst second at 20 a second, and costs 8, 5, 1, 1, 1 of 10, in Redis")
    for strategy in ("exact-window", "sliding-window", "fixed-window", "gcra"):
        groups = {"edge": Limit("s", 20, 1.0), "cost": Limit("m", 10, 60.0)}
        with RateLimiter(
            groups, storage=url, strategy=strategy, namespace=f"a-{strategy}", store_budget=5
        ) as one:
            worst = edge(lambda one=one: one.hit("edge", "k"), period=1.0)
            taken = "".join("y" if one.hit("cost", "k", cost=cost) else "n" for cost in (8, 5, 1, 1, 1))
        print(f"  ours, {strategy:<46} {worst:6} {taken:>8}")
    if not installed("limits"):
        return
    from limits import parse
    from limits.storage import RedisStorage
    from limits.strategies import (
        FixedWindowRateLimiter,
        MovingWindowRateLimiter,
        SlidingWindowCounterRateLimiter,
    )

    for kind in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
        strategy, second, minute = kind(RedisStorage(url)), parse("20/second"), parse("10/minute")
        worst = edge(lambda s=strategy, i=second, n=kind.__name__: s.hit(i, "edge", n), period=1.0)
        taken = "".join(
            "y" if strategy.hit(minute, "cost", kind.__name__, cost=cost) else "n" for cost in (8, 5, 1, 1, 1)
        )
        print(f"  limits {kind.__name__:<45} {worst:6} {taken:>8}")


@contextlib.contextmanager
def redis_url() -> Iterator[str | None]:
    program = shutil.which("redis-server")
    if program is None:
        print("\nno redis-server here: left out")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(path), "--save", ""], stdout=subprocess.DEVNULL
        )
        try:
            while not path.exists():
                time.sleep(0.01)
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    wanted = sys.argv[1:] or ["codes", "limits", "accuracy"]
    if "codes" in wanted:
        codes()
        at_rest()
        qr_codes()
    if "limits" in wanted:
        limits_in_memory()
    with redis_url() as url:
        if url and "limits" in wanted:
            limits_in_redis(url)
        if url and "accuracy" in wanted:
            accuracy(url)


if __name__ == "__main__":
    main()
