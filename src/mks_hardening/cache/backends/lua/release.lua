-- Release a lease if the caller still holds it, and wake callers that wait for a value.
local lease, wake = KEYS[1], KEYS[2]
local token, wake_ms = ARGV[1], ARGV[2]

local held = redis.call('HMGET', lease, 'token', 'waiting')
if held[1] ~= token then return 0 end
if held[2] then
  redis.call('RPUSH', wake, 1, 1)
  redis.call('PEXPIRE', wake, wake_ms)
end
return redis.call('DEL', lease)
