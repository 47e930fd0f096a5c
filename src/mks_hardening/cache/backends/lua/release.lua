-- Give a lease back, if it still is its caller's.
local lease = KEYS[1]
local token = ARGV[1]

if redis.call('HGET', lease, 'token') == token then return redis.call('DEL', lease) end
return 0
