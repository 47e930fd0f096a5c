local old, new, data, now, retention = unpack(ARGV, 2, 6) -- empty data: the data is kept

if lives(new) then return fields(new) end -- a repetition
if not lives(old) then return false end
local user, name, created, was, version = unpack(read(old, 'u', 'i', 'c', 'd', 'v'))
local ttl = redis.call('PTTL', session(old))
redis.call('RENAME', session(old), session(new))
if data ~= '' then
  redis.call('HSET', session(new), 'd', data)
  redis.call('HINCRBY', session(new), 'v', 1)
end
if name then redis.call('ZREM', index(name), old) end
list(name, created, new, ttl)
-- The old session keeps its data for concurrent requests that may still read it.
redis.call('HSET', session(old), 'u', user, 'i', name or '', 'c', created or '', 't', now, 'x', now,
  'd', was or '{}', 'v', version or 0, 'e', 'rotated')
redis.call('PEXPIRE', session(old), retention)
return fields(new)
