"""The Lua scripts of the Redis session store; each is one atomic operation, and harmless when repeated.

A session is a hash with the fields ``u`` user, ``i`` name of the user's index, ``c`` created, ``t`` seen,
``x`` expires, ``d`` data, ``v`` version, ``e`` why it ended (absent while it lives). The index of a user is a
sorted set of session keys by creation. ``ARGV[1]`` is the prefix of all keys.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CREATE", "END", "END_USER", "ROTATE", "SESSIONS", "TOUCH", "UPDATE"]

_COMMON: Final = """
local prefix = ARGV[1]
local function session(key) return prefix .. 's:' .. key end
local function index(name) return prefix .. 'u:' .. name end
local function lives(key)
  local found = redis.call('HMGET', session(key), 'u', 'e')
  return found[1] and not found[2]
end
local function bury(key, reason)
  if not lives(key) then return 0 end
  local name = redis.call('HGET', session(key), 'i')
  redis.call('HSET', session(key), 'e', reason, 'd', '{}')
  redis.call('ZREM', index(name), key)
  return 1
end
local function list(name, created, key, ttl)
  redis.call('ZADD', index(name), created, key)
  if redis.call('PTTL', index(name)) < ttl then redis.call('PEXPIRE', index(name), ttl) end
end
local function living(name, now)
  local found = {}
  for _, key in ipairs(redis.call('ZRANGE', index(name), 0, -1)) do
    local expires = redis.call('HGET', session(key), 'x')
    if not expires then
      redis.call('ZREM', index(name), key)
    elseif tonumber(expires) > now then
      table.insert(found, key)
    end
  end
  return found
end
local function fields(key)
  return redis.call('HMGET', session(key), 'u', 'c', 't', 'x', 'd', 'v', 'e')
end
"""

# prefix key user index created seen expires data now ttl replaces max
CREATE: Final = (
    _COMMON
    + """
local key, name, now, ttl, most = ARGV[2], ARGV[4], tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[12])
if redis.call('EXISTS', session(key)) == 1 then return {} end
redis.call('HSET', session(key), 'u', ARGV[3], 'i', name, 'c', ARGV[5], 't', ARGV[6], 'x', ARGV[7],
  'd', ARGV[8], 'v', 0)
redis.call('PEXPIRE', session(key), ttl)
list(name, ARGV[5], key, ttl)
if ARGV[11] ~= '' then bury(ARGV[11], 'revoked') end
local ended = {}
if most > 0 then
  local others = living(name, now)
  local excess = #others - most
  for _, other in ipairs(others) do
    if excess > 0 and other ~= key then
      bury(other, 'revoked')
      table.insert(ended, other)
      excess = excess - 1
    end
  end
end
return ended
"""
)

# prefix old new data-or-empty
ROTATE: Final = (
    _COMMON
    + """
local old, new = ARGV[2], ARGV[3]
if redis.call('EXISTS', session(new)) == 1 then return fields(new) end
if not lives(old) then return false end
local found = redis.call('HMGET', session(old), 'u', 'i', 'c', 't', 'x', 'v')
local ttl = redis.call('PTTL', session(old))
redis.call('RENAME', session(old), session(new))
if ARGV[4] ~= '' then
  redis.call('HSET', session(new), 'd', ARGV[4])
  redis.call('HINCRBY', session(new), 'v', 1)
end
redis.call('ZREM', index(found[2]), old)
list(found[2], found[3], new, ttl)
redis.call('HSET', session(old), 'u', found[1], 'i', found[2], 'c', found[3], 't', found[4], 'x', found[5],
  'd', '{}', 'v', found[6], 'e', 'revoked')
redis.call('PEXPIRE', session(old), ttl)
return fields(new)
"""
)

# prefix key seen expires ttl
TOUCH: Final = (
    _COMMON
    + """
local key, ttl = ARGV[2], tonumber(ARGV[5])
if not lives(key) then return 0 end
local found = redis.call('HMGET', session(key), 't', 'x', 'i')
if tonumber(ARGV[3]) > tonumber(found[1]) then redis.call('HSET', session(key), 't', ARGV[3]) end
if tonumber(ARGV[4]) > tonumber(found[2]) then
  redis.call('HSET', session(key), 'x', ARGV[4])
  redis.call('PEXPIRE', session(key), ttl)
  if redis.call('PTTL', index(found[3])) < ttl then redis.call('PEXPIRE', index(found[3]), ttl) end
end
return 1
"""
)

# prefix key version data
UPDATE: Final = (
    _COMMON
    + """
local key = ARGV[2]
if not lives(key) then return 0 end
local found = redis.call('HMGET', session(key), 'v', 'd')
if tonumber(found[1]) == tonumber(ARGV[3]) + 1 and found[2] == ARGV[4] then return 1 end
if tonumber(found[1]) ~= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', session(key), 'd', ARGV[4])
redis.call('HINCRBY', session(key), 'v', 1)
return 1
"""
)

# prefix key reason
END: Final = _COMMON + "return bury(ARGV[2], ARGV[3])"

# prefix index now keep
END_USER: Final = (
    _COMMON
    + """
local number = 0
for _, key in ipairs(redis.call('ZRANGE', index(ARGV[2]), 0, -1)) do
  if key ~= ARGV[4] then
    local expires = tonumber(redis.call('HGET', session(key), 'x') or 0)
    local ended = bury(key, 'revoked')
    if expires > tonumber(ARGV[3]) then number = number + ended end
  end
end
return number
"""
)

# prefix index now
SESSIONS: Final = (
    _COMMON
    + """
local found = {}
for _, key in ipairs(living(ARGV[2], tonumber(ARGV[3]))) do table.insert(found, {key, fields(key)}) end
return found
"""
)
