-- Release a lease if the caller still holds it.
local lease = KEYS[1]
local token = ARGV[1]

if redis.call('HGET', lease, 'token') == token then return redis.call('DEL', lease) end
return 0
