-- Store a computed value if the caller still holds the lease under which it was computed: an invalidation
-- removes the lease, and another process may have acquired it.
local value, lease = KEYS[1], KEYS[2]
local token, data, ttl_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', lease, 'token') ~= token then return 0 end
redis.call('DEL', lease)
redis.call('SET', value, data, 'PX', ttl_ms)
return 1
