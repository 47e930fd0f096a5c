-- Store a computed value if the caller still holds the lease under which it was computed: an invalidation
-- removes the lease, and another process may have acquired it. Wakes callers that wait for the value.
local value, lease, wake = KEYS[1], KEYS[2], KEYS[3]
local token, data, ttl_ms, wake_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local held = redis.call('HMGET', lease, 'token', 'waiting')
if held[1] ~= token then return 0 end
redis.call('DEL', lease)
redis.call('SET', value, data, 'PX', ttl_ms)
if held[2] then
  redis.call('RPUSH', wake, 1, 1)
  redis.call('PEXPIRE', wake, wake_ms)
end
return 1
