"""Codes, ciphertexts, QR codes and limits, compared with peers in interleaved rounds.

    python benchmarks/security.py [totp] [codes] [sign_in] [limits] [accuracy]

Peers that are not installed are skipped. Figures are lower quartiles over interleaved rounds; ratios are to the
floor named first in each table. The Redis parts start a redis-server, and are skipped if it is not installed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import keep

from mks_hardening.security import (
    SIGN_IN_LIMITS,
    BreachedPasswords,
    ConcurrencyLimiter,
    Limit,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    PasswordHasher,
    RateLimiter,
    RelyingParty,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    TwoFactorManager,
    build_breach_filter,
    generate_recovery_codes,
    generate_secret,
    hash_password,
    qr_code,
    totp_code,
    verify_password,
    verify_totp,
)
from mks_hardening.security.second_factor._factor_record import decode_record
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RateLimitMiddleware, RateLimitRule

ROUNDS = 15
BOTH = (time.perf_counter, time.process_time)
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


def interleaved(
    title: str,
    contenders: dict[str, Callable[[], object]],
    *,
    number: int,
    rounds: int = ROUNDS,
    clocks: tuple[Callable[[], float], ...] = (time.perf_counter,),
) -> None:
    """Return the lower quartiles over interleaved rounds, which other load on the machine hardly affects.

    With two clocks, wall time and the CPU time of the process, the second is independent of a busy machine.
    """
    for call in contenders.values():
        call()
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            starts = [clock() for clock in clocks]
            for _ in range(number):
                call()
            taken = zip(clocks, starts, strict=True)
            times[name].append(tuple((clock() - start) / number for clock, start in taken))
    quartiles = {
        name: [sorted(column)[len(column) // 4] for column in zip(*taken, strict=True)]
        for name, taken in times.items()
    }
    keep(title, {name: columns[-1] * 1e6 for name, columns in quartiles.items()})
    base = next(iter(quartiles.values()))
    print(f"\n{title}{', by the wall and by CPU time' * (len(clocks) > 1)}")
    for name, columns in quartiles.items():
        shown = [
            f"{one * 1e6:12.1f} us {one / first:10.2f} x" for one, first in zip(columns, base, strict=True)
        ]
        print(f"  {name:<60} {' '.join(shown)}")


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
    if installed("django_otp"):
        from django_otp.oath import TOTP

        def django_otp(code: int) -> bool:
            third = TOTP(key)
            third.time = at
            return bool(third.verify(code, tolerance=1))

        contenders["django-otp TOTP.verify(tolerance=1), wrong code"] = lambda: django_otp(0)
    interleaved("TOTP, window of one step to each side", contenders, number=200)

    contenders = {f"{left} left": wrong_recovery_code(left) for left in (1, 10)}
    interleaved("A wrong recovery code, the whole of verify, by how many are left", contenders, number=50)
    contenders = {"TwoFactorManager.verify": wrong_recovery_code(10)}
    plain = generate_recovery_codes(3)
    if installed("werkzeug"):
        from werkzeug.security import check_password_hash, generate_password_hash

        slow = [generate_password_hash(code) for code in plain[1:3]]
        contenders["werkzeug scrypt, two of ten codes only"] = lambda: [
            check_password_hash(one, plain[0]) for one in slow
        ]
    interleaved("A wrong recovery code", contenders, number=1)


def wrong_recovery_code(left: int) -> Callable[[], object]:
    """A wrong recovery code, including decryption of the key; the time must not reveal how many codes are left."""
    manager = TwoFactorManager(MemoryTwoFactorStore(), issuer="MKS", secret_box=SecretBox(bytes(range(32))))
    secret = manager.begin_enrolment("u", account_name="taro").secret
    for code in manager.confirm_enrolment("u", totp_code(secret))[left:]:
        manager.verify("u", code)
    wrong = generate_recovery_codes(1)[0]

    def guess() -> None:
        manager.verify("u", wrong)
        manager.unlock("u", actor="benchmark")

    return guess


def passwords() -> None:
    """A wrong password must take as long for an old hash format as for an unknown user: within 10 %."""
    from werkzeug.security import generate_password_hash

    old = ("scrypt:32768:8:1", "pbkdf2:sha256:260000", "pbkdf2:sha256:600000", "pbkdf2:sha256:1000000")
    forms: dict[str, str | None] = {"nobody": None, "today's form": hash_password("right")}
    forms |= {method: generate_password_hash("right", method=method) for method in old}
    forms["a form nobody can read"] = "sha1$salt$hash"

    def checking(stored: str | None) -> Callable[[], object]:
        return lambda: verify_password("wrong", stored)

    interleaved(
        "A wrong password, by what is stored",
        {name: checking(stored) for name, stored in forms.items()},
        number=1,
        clocks=BOTH,
    )


def sign_in() -> None:
    """A refused sign-in must take as long as an unknown name: medians within 10 %, the whole first step."""
    from werkzeug.security import generate_password_hash

    right, wide = "a long sentence nobody guesses", "1000000 per minute"
    stored = hash_password(right)
    accounts = {
        "a wrong password": SignInAccount(user_id="1", name="taro", password_hash=stored),
        "an account that is disabled": SignInAccount(
            user_id="2", name="jiro", password_hash=stored, disabled=True
        ),
        "an account that is locked": SignInAccount(user_id="3", name="saburo", password_hash=stored),
    }
    for method in ("pbkdf2:sha256:260000", "pbkdf2:sha256:1000000", "scrypt:32768:8:1"):
        form = generate_password_hash(right, method=method)
        accounts[f"an old form, {method}"] = SignInAccount(user_id=method, name=method, password_hash=form)

    class Accounts:
        def find(self, name: str, /) -> SignInAccount | None:
            return next((account for account in accounts.values() if account.name == name), None)

        def get(self, user_id: str, /) -> SignInAccount | None:
            return next((account for account in accounts.values() if account.user_id == user_id), None)

        def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
            raise NotImplementedError

    limiter = RateLimiter(dict.fromkeys(SIGN_IN_LIMITS, wide) | {"auth_login_account": "500 per hour"})
    limiter.hit("auth_login_account", "user 3", cost=500)
    door = SignIn(Accounts(), store=MemorySignInStore(), limiter=limiter, factors=None, end_sessions=None)
    client = SignInClient(address="192.0.2.1")

    def asking(name: str, password: str) -> Callable[[], object]:
        return lambda: door.password(name, password, client=client)

    contenders = {"a name that nobody has": asking("nobody", right)}
    for title, account in accounts.items():
        password = right if account.disabled or account.name == "saburo" else "wrong"
        contenders[title] = asking(account.name, password)
    interleaved("A sign-in that is refused, by reason", contenders, number=1, clocks=BOTH)


def schemes() -> None:
    """Cost of a check per scheme; an account from before argon2 must take as long: within 10 %."""
    today, old = PasswordHasher(scheme="argon2id"), PasswordHasher(scheme="scrypt").hash("right")
    stored = today.hash("right")
    interleaved(
        "A wrong password where argon2id is installed, by what is stored",
        {
            "nobody": lambda: today.verify("wrong", None),
            "argon2id": lambda: today.verify("wrong", stored),
            "scrypt": lambda: today.verify("wrong", old),
        },
        number=1,
        clocks=BOTH,
    )


def leaked_passwords() -> None:
    """A look-up among a million, warm, in both formats, compared with an in-memory set (which takes 100 MB)."""
    digests = sorted(hashlib.sha1(str(number).encode()).digest() for number in range(1_000_000))
    with tempfile.TemporaryDirectory() as folder:
        text, compact = Path(folder) / "text", Path(folder) / "compact"
        text.write_text("".join(f"{digest.hex().upper()}:1\n" for digest in digests))
        build_breach_filter(text, compact)
        known = set(digests)
        asked = itertools.count()
        contenders: dict[str, Callable[[], object]] = {
            "SHA-1 and a set": lambda: hashlib.sha1(str(next(asked)).encode()).digest() in known
        }
        for path in (compact, text):
            table = BreachedPasswords(path)
            size = path.stat().st_size / 2**20
            contenders[f"BreachedPasswords, {path.name}, {size:.0f} MiB"] = lambda t=table: t(
                str(next(asked))
            )
        interleaved("A look-up among a million leaked passwords", contenders, number=2000)


def passkeys() -> None:
    """A whole assertion through the manager, compared with the check of the library alone."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from webauthn import verify_authentication_response
    from webauthn.helpers import base64url_to_bytes

    from soft_authenticator import SoftAuthenticator

    party = RelyingParty("example.com", name="MKS", origins=["https://example.com"])
    store, box = MemoryTwoFactorStore(), SecretBox(bytes(range(32)))
    manager = TwoFactorManager(
        store, issuer="MKS", secret_box=box, relying_party=party, passkey_store=MemoryPasskeyStore()
    )
    device = SoftAuthenticator()
    asked = manager.passkeys.begin_registration("u", session="s", account_name="u")
    manager.passkeys.finish_registration("u", device.create(asked.json), session="s")
    answer = device.get(manager.passkeys.begin_verification("u", session="s").json)
    client_data = json.loads(base64url_to_bytes(answer["response"]["clientDataJSON"]))
    key = decode_record(store.load("u").data).passkeys[0].public_key

    def library() -> object:
        return verify_authentication_response(
            credential=answer,
            expected_challenge=base64url_to_bytes(client_data["challenge"]),
            expected_rp_id="example.com",
            expected_origin="https://example.com",
            credential_public_key=base64url_to_bytes(key),
            credential_current_sign_count=0,
        )

    def whole() -> object:
        options = manager.passkeys.begin_verification("u", session="s")
        return manager.verify("u", PasskeyAssertion(device.get(options.public_key), session="s"))

    def authenticator() -> object:
        return device.get({"challenge": client_data["challenge"]})

    contenders = {
        "py_webauthn alone": library,
        "the authenticator of the test alone": authenticator,
        "challenge, authenticator and verify": whole,
    }
    interleaved("A passkey's assertion (ES256)", contenders, number=20)


def at_rest() -> None:
    secret, at = generate_secret(), 1_700_000_000.0
    box, clock = SecretBox([bytes(range(32, 64)), bytes(range(32))]), FrozenClock(at)
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


def fresh_keys(every: int = 40) -> Callable[[], str]:
    """A key that changes before a small quota is used up."""
    hits = itertools.count()
    return lambda: f"k{next(hits) // every}"


def limits_in_memory() -> None:
    """Allowed hits, and hits of a blocked key: three of our limits compared with one of the peers."""
    contenders: dict[str, Callable[[], object]] = {}
    if installed("limits"):
        from limits import parse, parse_many
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        three = parse_many("50/minute; 80/hour; 100/day")
        for kind in (MovingWindowRateLimiter, FixedWindowRateLimiter):
            strategy, keys, one = kind(MemoryStorage()), fresh_keys(), parse("50/minute")
            contenders[f"limits {kind.__name__}, 1 limit, passing"] = lambda s=strategy, k=keys, o=one: s.hit(
                o, k()
            )
            strategy, keys = kind(MemoryStorage()), fresh_keys()
            contenders[f"limits {kind.__name__}, 3 limits, passing"] = lambda s=strategy, k=keys, g=three: [
                s.hit(item, key) for key in (k(),) for item in g
            ]
            strategy, daily = kind(MemoryStorage()), parse("1/day")
            contenders[f"limits {kind.__name__}, 1 limit, blocked"] = lambda s=strategy, o=daily: s.hit(
                o, "k"
            )
    if installed("throttled"):
        from throttled import Throttled, per_min, store

        for using in ("gcra", "sliding_window"):
            peer, keys = (
                Throttled(using=using, quota=per_min(1_000_000), store=store.MemoryStore()),
                fresh_keys(),
            )
            contenders[f"throttled-py {using}, 1 limit, passing"] = lambda p=peer, k=keys: p.limit(k())
    for strategy in ("exact-window", "sliding-window", "fixed-window", "gcra"):
        ours, keys = RateLimiter({"g": THREE}, strategy=strategy), fresh_keys()
        contenders[f"ours {strategy}, 3 limits, passing"] = lambda o=ours, k=keys: o.hit("g", k())
    for strategy in ("exact-window", "sliding-window"):
        ours = RateLimiter({"g": [Limit("d", 1, 86400.0), *THREE]}, strategy=strategy)
        contenders[f"ours {strategy}, 4 limits, blocked"] = lambda o=ours: o.hit("g", "k")
    interleaved("One hit in memory", contenders, number=300, rounds=31)


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
        keys = fresh_keys()
        contenders[f"ours {strategy}, 3 limits with header data"] = lambda o=one, k=keys: o.hit("g", k())
    blocked = RateLimiter({"g": Limit("hour", 1, 3600.0)}, storage=url, namespace="blocked", store_budget=5)
    opened.append(blocked)
    contenders["ours, a key that is blocked anyway"] = lambda: blocked.hit("g", "k")
    paced = RateLimiter({"g": Limit("s", 1_000_000, 1.0)}, storage=url, namespace="paced", store_budget=5)
    opened.append(paced)
    contenders["ours, a turn of a pace"] = lambda: paced.pace("g").wait()
    slots = ConcurrencyLimiter({"g": 10}, storage=url, store_budget=5)
    contenders["ours, a concurrency slot taken and given back"] = lambda: slots.acquire("g", "k").release()
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
    with contextlib.suppress(ImportError):
        from throttled import Throttled, per_min, store

        peer = Throttled(using="gcra", quota=per_min(1_000_000), store=store.RedisStore(server=url))
        contenders["throttled-py gcra, 1 limit"] = lambda: peer.limit("k")
    interleaved("One hit in Redis on loopback", contenders, number=40, rounds=41)
    for one in (*opened, slots):
        one.close()
    client.close()


def whole_requests() -> None:
    """A Flask request with three limits and their header fields, in memory."""
    try:
        from flask import Flask
        from flask_limiter import Limiter
        from werkzeug.test import create_environ
    except ImportError:
        return

    def application() -> Flask:
        app = Flask("bench")
        app.add_url_rule("/", view_func=lambda: "hello")
        return app

    bare, peer, ours = application(), application(), application()
    Limiter(
        lambda: "k",
        app=peer,
        default_limits=["1000000/minute", "1000000/hour", "1000000/day"],
        storage_uri="memory://",
        strategy="moving-window",
        headers_enabled=True,
    )
    ours.wsgi_app = RateLimitMiddleware(  # type: ignore[method-assign]
        ours.wsgi_app, limiter=RateLimiter({"g": WIDE}), rules=[RateLimitRule("g")]
    )

    def asking(app: Flask) -> Callable[[], object]:
        return lambda: b"".join(app(create_environ("/"), lambda *_: None))

    contenders = {
        "Flask alone": asking(bare),
        "Flask with RateLimitMiddleware, 3 limits": asking(ours),
        "Flask-Limiter, moving window, 3 limits": asking(peer),
    }
    interleaved("One Flask request, limits in memory", contenders, number=30, rounds=21)


HAMMER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from mks_hardening.security import RateLimiter
limiter = RateLimiter({"g": "100 per hour"}, storage=sys.argv[1], strategy=sys.argv[2], store_budget=5)
limiter.test("g", "k")
sys.stdin.readline()
with ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(lambda _: bool(limiter.hit("g", "k")), range(160))))
"""


def admitted(url: str) -> None:
    print("\nOf 640 hits from 4 processes of 16 threads at a limit of 100")
    for strategy in ("exact-window", "sliding-window", "fixed-window", "gcra"):
        command = [sys.executable, "-c", HAMMER.replace('"g", "k"', f'"g", "{strategy}"'), url, strategy]
        children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        time.sleep(1)  # until all of them wait for the word
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        passed = sum(int(child.communicate()[0]) for child in children)
        print(f"  ours, {strategy:<46} {passed:12} passed")


def worst_period(hits: list[float], period: float) -> int:
    return max((sum(at <= other < at + period for other in hits) for at in hits), default=0)


def edge(try_one: Callable[[], object], *, period: float) -> int:
    """Return the maximum number of hits in any one period, requested without pause for three periods."""
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
    wanted = sys.argv[1:] or ["codes", "sign_in", "limits", "accuracy"]
    # Neither the floors nor the peers write an audit trail. What a log record costs is measured by bench_logging.
    logging.getLogger("mks_hardening.security").setLevel(logging.CRITICAL)
    if "codes" in wanted or "totp" in wanted:
        codes()
    if "codes" in wanted:
        passwords()
        schemes()
        leaked_passwords()
        passkeys()
        at_rest()
        qr_codes()
    if "sign_in" in wanted:
        sign_in()
    if "limits" in wanted:
        limits_in_memory()
        whole_requests()
    with redis_url() as url:
        if url and "limits" in wanted:
            limits_in_redis(url)
        if url and "accuracy" in wanted:
            admitted(url)
            accuracy(url)


if __name__ == "__main__":
    main()
