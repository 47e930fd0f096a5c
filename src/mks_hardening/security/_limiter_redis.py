"""Counts in Redis: one script, one round trip, the server's clock, the arithmetic of ``_windows``.

Two keys in one cluster slot for each group and key: a list with the moments of the last hits, shared by all exact
limits, and a hash with one field for each other limit. Both vanish by themselves when they no longer matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.redis_client import RedisClient
from mks_hardening.security._counters import Count
from mks_hardening.security._namespace import check_namespace
from mks_hardening.security._windows import Look, strategy_for

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike
    from mks_hardening.security._limits import Limit, Strategy

__all__ = ["RedisCounters"]

_CODES: Final = {"exact-window": "e", "sliding-window": "s", "fixed-window": "f", "gcra": "g"}

_COUNT: Final = """
local list, hash = KEYS[1], KEYS[2]
local taking, cost = ARGV[1] == '1', tonumber(ARGV[2])
local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]

local limits, fields = {}, {'now'}
for i = 3, #ARGV, 4 do
  local limit = {kind = ARGV[i], field = ARGV[i + 1], quota = tonumber(ARGV[i + 2]), window = tonumber(ARGV[i + 3])}
  limits[#limits + 1] = limit
  if limit.kind ~= 'e' then fields[#fields + 1] = limit.field end
end
local counting = #fields > 1
local listing = #fields - 1 < #limits

local stored = {}
if counting then
  local values = redis.call('HMGET', hash, unpack(fields))
  for i, field in ipairs(fields) do stored[field] = values[i] end
  now = math.max(now, tonumber(stored.now or 0))
end
local hits, length = {}, 0
local function hit_at(index)
  if not hits[index] then hits[index] = tonumber(redis.call('LINDEX', list, index)) end
  return hits[index]
end
if listing then
  length = redis.call('LLEN', list)
  if length > 0 then now = math.max(now, hit_at(length - 1)) end
end

local function format(...)
  return string.format(string.sub(string.rep('%.0f ', select('#', ...)), 1, -2), ...)
end

local look, take = {}, {}

function look.e(limit)
  local low, high, edge = math.max(0, length - limit.quota), length, now - limit.window
  while low < high do
    local middle = math.floor((low + high) / 2)
    if hit_at(middle) > edge then high = middle else low = middle + 1 end
  end
  local used = length - low
  local excess, retry, reset = used + cost - limit.quota, 0, 0
  if excess > 0 then retry = hit_at(low + excess - 1) + limit.window - now end
  if used > 0 then reset = hit_at(length - 1) + limit.window - now end
  return limit.quota - used, reset, retry
end

function take.e(limit)
  return limit.window, limit.window
end

function look.s(limit)
  local window, index = limit.window, math.floor(now / limit.window)
  local at, present, former = string.match(stored[limit.field] or '', '(%d+) (%d+) (%d+)')
  at, present, former = tonumber(at or -2), tonumber(present or 0), tonumber(former or 0)
  if at == index - 1 then present, former = 0, present
  elseif at ~= index then present, former = 0, 0 end
  limit.present, limit.former, limit.index = present, former, index
  local left = window - now % window
  local free = (limit.quota - present) * window - former * left
  local retry, reset, room = 0, 0, limit.quota - cost
  if present > 0 then reset = left + window elseif former > 0 then reset = left end
  if cost * window > free then
    if present <= room then retry = left - math.floor((room - present) * window / former)
    else retry = left + window - math.floor(room * window / present) end
  end
  return math.max(0, math.floor(free / window)), reset, retry
end

function take.s(limit)
  stored[limit.field] = format(limit.index, limit.present + cost, limit.former)
  return 2 * limit.window - now % limit.window, 2 * limit.window
end

function look.f(limit)
  local start, used = string.match(stored[limit.field] or '', '(%d+) (%d+)')
  start, used = tonumber(start or 0), tonumber(used or 0)
  local left, retry = start + limit.window - now, 0
  if used == 0 or left <= 0 then start, used, left = now, 0, 0 end
  limit.start, limit.used = start, used
  if used + cost > limit.quota then retry = left end
  return limit.quota - used, left, retry
end

function take.f(limit)
  stored[limit.field] = format(limit.start, limit.used + cost)
  return limit.start + limit.window - now, limit.window
end

function look.g(limit)
  limit.spacing = math.ceil(limit.window / limit.quota)
  limit.ahead = math.max(0, tonumber(stored[limit.field] or 0) - now)
  local burst = limit.spacing * limit.quota
  local late = limit.ahead + cost * limit.spacing - burst
  return math.floor((burst - limit.ahead) / limit.spacing), limit.ahead, math.max(0, late)
end

function take.g(limit)
  local ahead = limit.ahead + cost * limit.spacing
  stored[limit.field] = format(now + ahead)
  return ahead, limit.spacing * limit.quota
end

local answer, fits = {0}, true
for i, limit in ipairs(limits) do
  local remaining, reset, retry = look[limit.kind](limit)
  answer[3 * i - 1], answer[3 * i], answer[3 * i + 1] = remaining, reset, retry
  if retry > 0 then fits = false end
end
if not (taking and fits) then return answer end

answer[1] = now
local kept, longest, lasting = 0, 0, 0
for i, limit in ipairs(limits) do
  local reset, ttl = take[limit.kind](limit)
  answer[3 * i - 1], answer[3 * i] = answer[3 * i - 1] - cost, reset
  if limit.kind == 'e' then
    longest, kept = math.max(longest, ttl), math.max(kept, limit.quota)
  else
    lasting = math.max(lasting, ttl)
  end
end
if listing then
  for _ = 1, cost do redis.call('RPUSH', list, format(now)) end
  if length + cost > kept then redis.call('LTRIM', list, -kept, -1) end
  redis.call('PEXPIRE', list, math.ceil(longest / 1000))
end
if counting then
  stored.now = format(now)
  local written = {}
  for field, value in pairs(stored) do
    if value then
      written[#written + 1] = field
      written[#written + 1] = value
    end
  end
  redis.call('HSET', hash, unpack(written))
  redis.call('PEXPIRE', hash, math.ceil(lasting / 1000))
end
return answer
"""

_GIVE_BACK: Final = """
local list, hash = KEYS[1], KEYS[2]
local at, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local function format(...)
  return string.format(string.sub(string.rep('%.0f ', select('#', ...)), 1, -2), ...)
end
redis.call('LREM', list, -cost, ARGV[1])
for i = 3, #ARGV, 4 do
  local kind, field, quota, window = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local value = kind ~= 'e' and redis.call('HGET', hash, field)
  if value then
    local a, b, c = string.match(value, '(%d+) ?(%d*) ?(%d*)')
    a, b, c = tonumber(a), tonumber(b), tonumber(c)
    if kind == 's' then
      local index = math.floor(at / window)
      if index == a then b = math.max(0, b - cost) elseif index == a - 1 then c = math.max(0, c - cost) end
      value = format(a, b, c)
    elseif kind == 'f' then
      if at >= a then b = math.max(0, b - cost) end
      value = format(a, b)
    else
      value = format(math.max(0, a - cost * math.ceil(window / quota)))
    end
    redis.call('HSET', hash, field, value)
  end
end
return 1
"""


class RedisCounters:
    """Counters shared by all processes that use one Redis."""

    def __init__(
        self,
        storage: str | RedisLike,
        *,
        strategy: Strategy,
        namespace: str = "mks",
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_namespace(namespace)
        self._client = RedisClient(
            storage, store_budget=store_budget, allow_plaintext=allow_plaintext, clock=clock
        )
        self._count = self._client.script(_COUNT)
        self._give_back = self._client.script(_GIVE_BACK)
        self._strategy: Strategy = strategy
        self._prefix = f"{namespace}:limit:"
        self._arguments: dict[str, list[bytes]] = {}

    def hit(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """Take hits from all limits or from none."""
        return self._counted(group, key, limits, 1, cost)

    def test(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """What ``hit`` would see, without counting."""
        return self._counted(group, key, limits, 0, cost)

    def give_back(self, group: str, key: str, limits: tuple[Limit, ...], *, at: int, cost: int) -> None:
        """Uncount hits taken at that moment."""
        self._give_back.run(self._keys(group, key), [at, cost, *self._described(group, limits)])

    def reset(self, group: str, key: str) -> None:
        """Forget all hits of a key."""
        self._client.call("DEL", *self._keys(group, key), idempotent=True)

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _counted(self, group: str, key: str, limits: tuple[Limit, ...], taking: int, cost: int) -> Count:
        answer = self._count.run(self._keys(group, key), [taking, cost, *self._described(group, limits)])
        looks = [Look(*answer[start : start + 3]) for start in range(1, len(answer), 3)]
        return Count(looks, answer[0] or None)

    def _keys(self, group: str, key: str) -> tuple[str, str]:
        # A lone surrogate from a header must not end in an encoding error.
        text = key if key.isascii() else key.encode("utf-8", "backslashreplace").decode("utf-8")
        base = f"{self._prefix}{{{group}:{text}}}"
        return f"{base}:hits", f"{base}:counts"

    def _described(self, group: str, limits: tuple[Limit, ...]) -> list[bytes]:
        found = self._arguments.get(group)
        if found is None:
            parts = [part for limit in limits for part in self._described_one(limit)]
            found = self._arguments[group] = [str(part).encode("ascii") for part in parts]
        return found

    def _described_one(self, limit: Limit) -> tuple[str | int, ...]:
        kind = _CODES[strategy_for(limit, self._strategy)]
        window = round(limit.window * 1e6)
        return kind, f"{kind}:{window}:{limit.name}", limit.quota, window
