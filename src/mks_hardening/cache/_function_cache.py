"""The cache of one function: which cache, which key, which options, and how its results are packed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from mks_hardening._core.cache_key_error import CacheKeyError
from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening._core.checks import number
from mks_hardening._core.durations import seconds
from mks_hardening._core.memo import Memo
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import require_sync_result
from mks_hardening.cache._call_keys import Normalizer, argument_error
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._value_type import UndeclaredTypeError, ValueType, return_type_of, value_type_of
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.cache_stats import CacheStats
from mks_hardening.cache.compute._get_or_compute import ComputeOptions
from mks_hardening.cache.compute._result_computation import ResultComputation, ResultRules
from mks_hardening.exceptions import ConfigurationError, DecodeError

__all__ = [
    "FunctionCache",
    "FunctionOptions",
    "call_options",
    "check_cache",
    "declared_type",
    "set_default_cache",
    "version_text",
]

Args: TypeAlias = tuple[Any, ...]
"""The positional arguments of a call."""
Kwargs: TypeAlias = Mapping[str, Any]
"""The keyword arguments of a call."""
Result: TypeAlias = Any
"""What the function of the caller returns."""

_NO_RULES: Final = ResultRules()
_HAVE_ONE_TEXT: Final = frozenset({str, int, bool, bytes, type(None)})
_MOST_KEYS: Final = 512
"""Keys of one function and types that are remembered: making one takes longer than a hit in memory."""
_MOST_KINDS: Final = 16
_logger = logging.getLogger("mks_hardening.cache")

_default: BaseCache | None = None


def check_cache(cache: object) -> None:
    """Check that a value is a cache.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(cache, BaseCache):
        raise ConfigurationError(
            f"cache must be a cache of this package, not {type(cache).__name__}", parameter="cache"
        )


def set_default_cache(cache: BaseCache | None) -> None:
    """Set the cache of all functions decorated without one; looked up at each call, None switches it off.

    Raises:
        ConfigurationError: not a cache of this package.
    """
    if cache is not None:
        check_cache(cache)
    global _default  # noqa: PLW0603 - setting the default of the process is the purpose of this function
    _default = cache


class FunctionOptions(NamedTuple):
    """The options of ``cached``, checked.

    Attributes:
        cache: the cache; None for the default of the process.
        plan: returns the options of a computation in a cache.
        tags: the tags, or a function of the arguments that returns them.
        condition: whether a call uses the cache; a function of the arguments.
        rules: the rules for results; without a declared type, the annotation of the function may declare one.
        version: what keys say about the version.
        early: whether results are recomputed before they expire.
    """

    cache: BaseCache | None
    plan: Callable[[BaseCache], ComputeOptions]
    tags: tuple[str, ...] | Callable[..., Iterable[str]]
    condition: Callable[..., object] | None
    rules: ResultRules
    version: str
    early: bool


class FunctionCache:
    """Decides for each call of a function how the cache is used.

    Args:
        function: the function.
        name: identifies it in keys.
        normalized: returns the arguments of a call in normal order.
        options: the options of ``cached``.
        names_arguments: whether ``normalized`` returns the arguments of the function itself.
    """

    __slots__ = (
        "_condition",
        "_counters",
        "_function",
        "_keys",
        "_name",
        "_names_arguments",
        "_normalized",
        "_of_function",
        "_options",
        "_own_cache",
        "_packing",
        "_planned",
        "_uses_peek",
    )

    def __init__(
        self,
        function: Callable[..., Result],
        name: str,
        normalized: Normalizer,
        options: FunctionOptions,
        *,
        names_arguments: bool,
    ) -> None:
        self._function = function
        self._name = name
        self._normalized = normalized
        self._options = options
        self._own_cache = options.cache
        self._condition = options.condition
        self._names_arguments = names_arguments
        self._counters = CacheCounters(name, of_function=True)
        self._keys: dict[tuple[type, ...], Memo[tuple[object, ...], str]] = {}
        self._of_function: tuple[str, ResultRules] | None = None
        self._packing: ValueType | None = None
        self._planned: tuple[BaseCache, ComputeOptions] | None = None
        # A look without a round trip does not tell when the result expires.
        self._uses_peek = not options.early

    @property
    def cache(self) -> BaseCache | None:
        """The cache, if there is one."""
        return _default if self._own_cache is None else self._own_cache

    def cache_for(self, args: Args, kwargs: Kwargs) -> BaseCache | None:
        """Return the cache for a call, or None if it bypasses the cache."""
        where = self.cache
        return where if where is not None and self._admits(where, args, kwargs) else None

    def find(self, args: Args, kwargs: Kwargs) -> tuple[BaseCache | None, str, Result]:
        """Return the cache of a call, its key, and the result if there is one without a round trip.

        The cache is None if the call bypasses it; the result is ``MISSING`` if there is none.

        Raises:
            CacheKeyError: an argument cannot be part of a key.
        """
        # In one method: each call of another one would take a tenth of a hit in memory.
        where = _default if self._own_cache is None else self._own_cache
        if where is None or (self._condition is not None and not self._admits(where, args, kwargs)):
            return None, "", MISSING
        arguments, kinds = self._normalized(*args, **kwargs)
        keys = self._keys.get(kinds)
        key = self._new_key(arguments, kinds) if keys is None else keys[arguments]
        value: Result = where.peek(key) if self._uses_peek else MISSING
        if value is not MISSING:
            self._counters.hit()
            if self._packing is not None:  # known, since the key was made
                value = _unpacked(self._packing, value)
        return where, key, value

    def _admits(self, where: BaseCache, args: Args, kwargs: Kwargs) -> bool:
        if self._condition is None or require_sync_result(self._condition(*args, **kwargs)):
            return True
        where.count_bypass("condition")
        self._counters.bypass("condition")
        return False

    def key(self, args: Args, kwargs: Kwargs) -> str:
        """Return the cache key of a call.

        Raises:
            CacheKeyError: an argument cannot be part of a key.
        """
        arguments, kinds = self._normalized(*args, **kwargs)
        keys = self._keys.get(kinds)
        return self._new_key(arguments, kinds) if keys is None else keys[arguments]

    def _new_key(self, arguments: tuple[object, ...], kinds: tuple[type, ...]) -> str:
        """Return the key of a call whose types are new; keys are remembered if all arguments have one text."""
        # Equal values of one of these types have one text; 0.0 and -0.0 have two.
        if not _HAVE_ONE_TEXT.issuperset(kinds):
            return self._key_of(arguments)
        if len(self._keys) >= _MOST_KINDS:
            self._keys.clear()
        keys = self._keys[kinds] = Memo(self._key_of, entries=_MOST_KEYS)
        return keys[arguments]

    def _key_of(self, arguments: tuple[object, ...]) -> str:
        try:
            text = canonical(arguments)
        except CacheKeyError:
            if not self._names_arguments:
                raise
            raise argument_error(self._function, arguments) from None
        suffix = (self._of_function or self._described())[0]
        # A digest only: arguments may be personal data, and keys appear in MONITOR, slow logs and dumps.
        return f"{self._name}:{digest(text + suffix if suffix else text)}"

    def options(self, where: BaseCache, args: Args, kwargs: Kwargs) -> ComputeOptions:
        """Return how the result of a call is stored and waited for."""
        planned = self._planned
        tags = self._options.tags
        if planned is None or planned[0] is not where:
            usual = self._options.plan(where)._replace(
                tags=() if callable(tags) else tags, counters=self._counters
            )
            self._planned = planned = (where, usual)
        return planned[1]._replace(tags=check_tags(tags(*args, **kwargs))) if callable(tags) else planned[1]

    def computation(self, args: Args, kwargs: Kwargs) -> Callable[[], Result]:
        """Return the call as a function without arguments."""
        called = partial(self._function, *args, **kwargs)
        rules = (self._of_function or self._described())[1]
        return called if rules == _NO_RULES else ResultComputation(called, rules)

    def cache_info(self) -> CacheStats:
        """Return the counts of this function in this process."""
        return self._counters.snapshot(pending=0)

    def _described(self) -> tuple[str, ResultRules]:
        """Return what keys say about the function beside its name, and the rules for its results."""
        # At the first call: at the decoration, annotations may name classes that follow in the module.
        rules = self._options.rules
        if rules.value_type is None:
            rules = rules._replace(value_type=_annotated_type(self._function))
        kind = rules.value_type
        suffix = self._options.version + ("" if kind is None else f"\0{kind.fingerprint}")
        self._packing = kind
        self._of_function = (suffix, rules)
        return self._of_function


def _unpacked(packing: ValueType, value: Result) -> Result:
    try:
        return packing.unpack(value)
    except DecodeError:  # set by the caller under this key
        return MISSING


def call_options(
    ttl: float | timedelta | Callable[..., object] | None,
    stale_while_revalidate: float | timedelta | None,
    compute_wait: float | timedelta | None,
    *,
    stale_on_error: float | timedelta | None,
    soft_timeout: float | timedelta | None,
    early_refresh: float,
) -> Callable[[BaseCache], ComputeOptions]:
    """Check the durations of ``cached``; return a function that fills in the defaults of a cache.

    Raises:
        ConfigurationError: one of them is invalid.
    """
    lifetime = None if callable(ttl) else _duration(ttl, "ttl")
    grace = _duration(stale_while_revalidate, "stale_while_revalidate")
    wait = _duration(compute_wait, "compute_wait")
    error_grace = _duration(stale_on_error, "stale_on_error")
    soft = _duration(soft_timeout, "soft_timeout")
    if soft is not None and not error_grace:
        raise ConfigurationError(
            "soft_timeout requires stale_on_error: without an old result there is nothing to return instead",
            parameter="soft_timeout",
        )
    early = number(early_refresh, parameter="early_refresh", minimum=0, maximum=10)

    def plan(cache: BaseCache) -> ComputeOptions:
        return ComputeOptions(
            cache.default_ttl if lifetime is None else lifetime,
            grace or 0.0,
            (),
            cache.compute_wait if wait is None else wait,
            error_grace or 0.0,
            soft,
            early,
        )

    return plan


def _duration(duration: float | timedelta | None, parameter: str) -> float | None:
    return None if duration is None else seconds(duration, parameter=parameter)


def version_text(version: object) -> str:
    """Return what keys say about the version of a function.

    Raises:
        ConfigurationError: neither text nor a whole number.
    """
    if version == "":
        return ""
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise ConfigurationError("version must be text or a whole number", parameter="version")
    return f"\0{version!r}"


def declared_type(declared: object) -> ValueType:
    """Return how to pack values of a type that the caller gave.

    Raises:
        ConfigurationError: it cannot be decoded, or is plain data.
    """
    try:
        found = value_type_of(declared)
    except UndeclaredTypeError as error:
        raise ConfigurationError(f"value_type cannot be decoded: {error}", parameter="value_type") from error
    if found is None:
        raise ConfigurationError(
            f"value_type must be a class with fields, or contain one, which {declared!r} is not; "
            "omit it for plain data",
            parameter="value_type",
        )
    return found


def _annotated_type(function: Callable[..., Result]) -> ValueType | None:
    try:
        return return_type_of(function)
    except UndeclaredTypeError as error:
        # Its results may be plain data all the same; if not, there is a warning when one cannot be stored.
        _logger.debug("the results of %r are cached as plain data: %s", function, error)
        return None
