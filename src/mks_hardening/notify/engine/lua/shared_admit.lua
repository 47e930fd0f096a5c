-- Request to send an alert; returns the unreported repetitions, or -1 if another process has sent the alert.
local kind = KEYS[1]
local counting = KEYS[2]
local window_ms = tonumber(ARGV[1])
local process = ARGV[2]
local alive_ms = ARGV[3]
local expire_s = ARGV[4]

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

redis.call('ZADD', counting, now + tonumber(alive_ms), process)
redis.call('PEXPIRE', counting, alive_ms)
if tonumber(redis.call('HGET', kind, 'until') or '0') > now then return -1 end
local unreported = tonumber(redis.call('HGET', kind, 'unreported') or '0')
redis.call('HSET', kind, 'until', now + window_ms, 'unreported', 0, 'digest', 0)
redis.call('EXPIRE', kind, expire_s)
return unreported
