-- A session is a hash with the fields u user, i name of the user's index, c created, t seen, x expires, d data,
-- v version, e why it ended (absent while it lives). The index of a user is a sorted set of session keys by
-- creation. All keys begin with one prefix that holds the hash tag: a Cluster keeps a namespace in one slot, so
-- keys may be built here. Each script is one atomic operation, and harmless when repeated. Damaged
-- sessions are treated as absent and removed, so that they lock no user out.
local prefix = ARGV[1]

local function session(key) return prefix .. 's:' .. key end

local function index(name)
  local key = prefix .. 'u:' .. name
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', key) end
  return key
end

local function read(key, ...)
  local found = redis.pcall('HMGET', session(key), ...)
  if not found['err'] then return found end
  redis.call('DEL', session(key))
  return {}
end

local function lives(key)
  local user, ended = unpack(read(key, 'u', 'e'))
  return user and not ended
end

local function bury(key, reason)
  if not lives(key) then return 0 end
  local name = redis.call('HGET', session(key), 'i')
  redis.call('HSET', session(key), 'e', reason, 'd', '{}')
  if name then redis.call('ZREM', index(name), key) end
  return 1
end

-- Ends it because the browser got a new session; kept for a while for concurrent requests.
local function succeed(key, reason, now, retention)
  if bury(key, reason) == 1 then
    redis.call('HSET', session(key), 't', now, 'x', now)
    redis.call('PEXPIRE', session(key), retention)
  end
end

local function list(name, created, key, ttl)
  if not (name and tonumber(created)) then return end
  local listed = index(name)
  redis.call('ZADD', listed, created, key)
  if redis.call('PTTL', listed) < ttl then redis.call('PEXPIRE', listed, ttl) end
end

local function living(name, now)
  local found, listed = {}, index(name)
  for _, key in ipairs(redis.call('ZRANGE', listed, 0, -1)) do
    local expires, ended = unpack(read(key, 'x', 'e'))
    if ended or not tonumber(expires or '') then
      redis.call('ZREM', listed, key)
    elseif tonumber(expires) > now then
      table.insert(found, key)
    end
  end
  return found
end

local function fields(key)
  return redis.call('HMGET', session(key), 'u', 'c', 't', 'x', 'd', 'v', 'e')
end
