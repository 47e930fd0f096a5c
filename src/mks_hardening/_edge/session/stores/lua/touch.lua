local key, seen, expires, ttl = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

if not lives(key) then return 0 end
local was_seen, would_expire, name, created = unpack(read(key, 't', 'x', 'i', 'c'))
if tonumber(seen) > (tonumber(was_seen or '') or 0) then redis.call('HSET', session(key), 't', seen) end
if tonumber(expires) > (tonumber(would_expire or '') or 0) then
  redis.call('HSET', session(key), 'x', expires)
  redis.call('PEXPIRE', session(key), ttl)
  list(name, created, key, ttl) -- also where the index was lost
end
return 1
