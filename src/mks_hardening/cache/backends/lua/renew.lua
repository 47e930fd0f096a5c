-- Extend a lease. Returns whether the caller still holds it.
local lease = KEYS[1]
local token, alive_ms, kept_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]

if redis.call('HGET', lease, 'token') ~= token then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', lease, 'until', string.format('%d', now + alive_ms))
redis.call('PEXPIRE', lease, kept_ms)
return 1
