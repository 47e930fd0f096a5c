"""A password hasher with bounded memory use, whose checks take equally long for every account.

Passwords are normalised to Unicode form NFC (RFC 8265, OpaqueString), so that a password typed on another system is
the same. Nothing else is changed: case, width and spaces are significant (ASVS 5.0, 6.2.8).
"""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import thread_time
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from mks_hardening._core.checks import choice, text_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import BackendUnavailableError, MissingDependencyError
from mks_hardening.security.passwords._argon2 import PREFIX, Argon2
from mks_hardening.security.passwords._bcrypt import Bcrypt
from mks_hardening.security.passwords._fair_semaphore import FairSemaphore, hashing_client
from mks_hardening.security.passwords._hash_forms import BCRYPT, is_verifiable, method_of, translated
from mks_hardening.security.passwords._scrypt import Scrypt

if TYPE_CHECKING:
    from mks_hardening.security.passwords._scheme import HashScheme

__all__ = ["PasswordHasher"]

R = TypeVar("R")

_LONGEST: Final = 1024
_PAUSE: Final = 0.005
# Hashes come from the database: ones with ever new parameters must not grow the table.
_MOST_METHODS: Final = 16
_MEBIBYTE: Final = 1024 * 1024


class PasswordHasher:
    """Creates and verifies password hashes, a few at a time.

    One computation takes 32 MiB (scrypt) or 46 MiB (argon2id) and a core. As many run at the same time as the
    memory budget allows, but never more than there are cores. Others wait up to ``max_wait`` seconds, and then fail
    with a ``BackendUnavailableError``, which must not be counted as a wrong password. ``SignIn`` passes on which
    client it hashes for: networks and clients are served in turn, one client may have 4 requests in the queue and
    one network 8, and remembered devices, open sessions and mailed tokens are served first. All other callers count
    as one client, without a limit in the queue. Under gevent, a computation runs in a thread of its pool, so that
    other greenlets continue.

    Hashes of both schemes can be verified, and those of accounts from another system: argon2, scrypt and PBKDF2 of
    werkzeug and Django, and bcrypt (extra ``bcrypt``) of any system. ``SignIn`` replaces them at the first
    sign-in. A hash whose check would take more than some seconds does not match.

    A check that costs less than the most expensive kind of check this process has seen (an unknown user, another
    scheme, an unreadable hash) is padded with work to the same CPU time, so that its duration does not reveal
    which accounts exist or have old hashes. Respond with the same message in all cases, or the message reveals
    what the duration does not (ASVS 5.0, 6.3.8).

    Args:
        scheme: scheme of new hashes: ``argon2id`` (m=46 MiB, t=6, p=1), ``scrypt`` (N=32768, r=8, p=3), or
            ``auto``: argon2id if argon2-cffi is installed, otherwise scrypt.
        memory_budget: bytes that all processes together may use for hashing.
        workers: number of processes that share the budget.
        max_wait: maximum seconds to wait for a slot.

    Raises:
        ConfigurationError: a value is out of range.
        MissingDependencyError: argon2-cffi is not installed, and ``scheme`` is ``argon2id``.
    """

    def __init__(
        self,
        *,
        scheme: Literal["auto", "argon2id", "scrypt"] = "auto",
        memory_budget: int = 256 * _MEBIBYTE,
        workers: int = 1,
        max_wait: float | timedelta = 2.0,
    ) -> None:
        wanted = choice(scheme, ("auto", "argon2id", "scrypt"), parameter="scheme")
        budget = whole_number(memory_budget, parameter="memory_budget", minimum=_MEBIBYTE)
        processes = whole_number(workers, parameter="workers", minimum=1, maximum=1024)
        self._scheme: HashScheme = Scrypt() if wanted == "scrypt" else _argon2_or(wanted)
        # The schemes that accounts may have, including hashes from before argon2-cffi was installed.
        self._expected: tuple[HashScheme, ...] = (
            (self._scheme,) if isinstance(self._scheme, Scrypt) else (self._scheme, Scrypt())
        )
        self._max_wait = seconds(max_wait, parameter="max_wait")
        # Never more than cores: the computations would share them, and all finish later.
        self.slots: int = max(1, min(os.cpu_count() or 1, budget // (processes * self._scheme.memory)))
        # CPU seconds of the last checks by method and parameters; their medians are used.
        self._work: dict[str, deque[float]] = {}
        self.reset_after_fork()
        register_after_fork(self)

    @property
    def scheme(self) -> str:
        """Scheme of new hashes: ``argon2id`` or ``scrypt``."""
        return self._scheme.name

    def reset_after_fork(self) -> None:
        """Replace the slots: those that other threads hold during a fork are never released in the child."""
        self._slots = FairSemaphore(self.slots)

    def hash(self, password: str, /) -> str:
        """Hash a password.

        Raises:
            ValueError: empty, longer than 1024 characters, or not encodable as UTF-8.
            BackendUnavailableError: too many requests are waiting (``busy``).
            MissingDependencyError: werkzeug is not installed, which scrypt needs.
        """
        normal = _storable(password)
        with self._turn("hash"):
            return _beside_greenlets(lambda: self._scheme.make(normal))

    async def ahash(self, password: str, /) -> str:
        """``hash`` for asyncio, in a thread."""
        normal = _storable(password)
        return await self._in_thread("hash", lambda: self._scheme.make(normal))

    def verify(self, password: str, stored: str | None, /) -> bool:
        """Return whether the password matches the stored hash; does the same work for ``None`` (an unknown user).

        Raises:
            ConfigurationError: the stored hash is not a string.
            BackendUnavailableError: too many requests are waiting (``busy``); do not count it as a failed attempt.
            MissingDependencyError: the package that the hash needs is not installed.
        """
        with self._turn("verify"):
            return _beside_greenlets(lambda: self._verified(password, stored))

    async def averify(self, password: str, stored: str | None, /) -> bool:
        """``verify`` for asyncio, in a thread."""
        return await self._in_thread("verify", lambda: self._verified(password, stored))

    def needs_rehash(self, stored: str, /) -> bool:
        """Return whether a stored hash has another scheme or other parameters than new hashes.

        If so, hash the password again after a successful sign-in, when it is available.
        """
        return not self._scheme.is_present(text_of(stored, parameter="stored"))

    def can_verify(self, stored: str, /) -> bool:
        """Return whether a hash of another system has a form that can be verified, for an import of accounts.

        Unsalted or fast hashes (MD5, SHA-1, SHA-256, crypt) are not: such accounts need a new password.
        """
        return is_verifiable(translated(text_of(stored, parameter="stored")))

    def _verified(self, password: str, stored: str | None) -> bool:
        normal = _normal(password)
        form = (
            translated("" if stored is None else text_of(stored, parameter="stored")) or self._scheme.nobody
        )
        scheme = self._scheme_of(form)
        # CPU time rather than wall time: on a busy machine the wait for a core would count as work.
        began = thread_time()
        # A hash is checked even for an empty password, so that it takes as long.
        matches = scheme.check(form, normal or "-")
        spent = thread_time() - began
        if matches is not None:
            self._note(method_of(form), spent)
        self._top_up(None if matches is None else method_of(form), spent)
        return bool(matches) and bool(stored) and normal is not None

    def _scheme_of(self, form: str) -> HashScheme | Bcrypt:
        if BCRYPT.fullmatch(form):
            return Bcrypt()
        wanted = Argon2 if form.startswith(PREFIX) else Scrypt
        return self._scheme if isinstance(self._scheme, wanted) else wanted()

    def _note(self, method: str, spent: float) -> None:
        if method in self._work or len(self._work) < _MOST_METHODS:
            self._work.setdefault(method, deque(maxlen=15)).append(spent)

    def _top_up(self, method: str | None, spent: float) -> None:
        """Use CPU time until the check has taken as much as the most expensive kind of check on this machine."""
        # Without a lock, which gevent would replace by one that is not for threads: two that begin at the same time
        # both measure.
        with suppress(MissingDependencyError):
            for scheme in self._expected:
                self._learn(scheme)
        # The median: one check that was interrupted must not slow down all later ones.
        medians = {name: sorted(seen)[len(seen) // 2] for name, seen in list(self._work.items())}
        slowest = max(medians, key=medians.__getitem__)
        if method == slowest:
            return
        while spent < medians[slowest]:
            began = thread_time()
            _padding_work()
            spent += thread_time() - began

    def _learn(self, scheme: HashScheme) -> None:
        """Measure a check of this scheme, unless one was measured already."""
        method = method_of(scheme.nobody)
        if method not in self._work:
            began = thread_time()
            scheme.check(scheme.nobody, "-")
            self._note(method, thread_time() - began)

    @contextmanager
    def _turn(self, operation: str) -> Generator[None]:
        slots = self._slots
        waiter = slots.join(hashing_client.get())
        if waiter is None:
            raise self._busy(operation)
        try:
            granted = waiter.granted.wait(self._max_wait)
        except BaseException:  # a signal, or the greenlet was killed: the slot must not stay taken
            if slots.leave(waiter):
                slots.release()
            raise
        if not granted and not slots.leave(waiter):
            raise self._busy(operation)
        try:
            yield
        finally:
            # After a fork in between, the child has other slots, and these are not used any more.
            if slots is self._slots:
                slots.release()

    async def _in_thread(self, operation: str, work: Callable[[], R]) -> R:
        """Run work in the loop's executor, in no more threads than there are slots: waiting takes no thread."""
        import asyncio

        slots = self._slots
        give_up = SYSTEM_CLOCK.monotonic() + self._max_wait
        waiter = slots.join(hashing_client.get())
        if waiter is None:
            raise self._busy(operation)
        try:
            while not waiter.granted.is_set():
                if SYSTEM_CLOCK.monotonic() >= give_up:
                    break
                await asyncio.sleep(_PAUSE)
        except BaseException:  # cancelled
            if slots.leave(waiter):
                slots.release()
            raise
        if not slots.leave(waiter):
            raise self._busy(operation)

        def worked() -> R:
            try:
                return work()
            finally:
                slots.release()

        try:
            computation = asyncio.get_running_loop().run_in_executor(None, worked)
        except BaseException:  # the executor is shut down
            slots.release()
            raise
        # The caller may be cancelled; the computation continues and releases its slot at its end.
        return await asyncio.shield(computation)

    def _busy(self, operation: str) -> BackendUnavailableError:
        return BackendUnavailableError(
            "password hashing", "busy", operation=operation, sent=False, retry_after=max(1.0, self._max_wait)
        )

    def __repr__(self) -> str:
        return f"PasswordHasher({self.scheme!r}, slots={self.slots}, max_wait={self._max_wait:g})"


def _argon2_or(wanted: str) -> HashScheme:
    try:
        return Argon2()
    except MissingDependencyError:
        if wanted == "argon2id":
            raise
        return Scrypt()


def _beside_greenlets(work: Callable[[], R]) -> R:
    """Run work in a thread of gevent's pool if the caller is a greenlet: the others would stand still otherwise."""
    gevent = sys.modules.get("gevent")
    if gevent is None or not isinstance(gevent.getcurrent(), gevent.Greenlet):
        return work()
    computation = gevent.get_hub().threadpool.spawn(work)
    try:
        result: R = computation.get()
    finally:
        computation.wait()  # a greenlet that is killed keeps its slot as long as the computation uses memory
    return result


def _padding_work() -> None:
    """Do a few hundredths of the work of a check, so that overshooting is not measurable."""
    hashlib.scrypt(b"-", salt=b"-", n=2048, r=8, p=1)


def _storable(password: object) -> str:
    normal = _normal(password)
    if normal is None:
        raise ValueError("password must be 1 to 1024 characters that UTF-8 can encode")
    return normal


def _normal(password: object) -> str | None:
    if not isinstance(password, str) or not 0 < len(password) <= _LONGEST:
        return None
    normal = unicodedata.normalize("NFC", password)
    try:
        normal.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return normal
