-- Add repetitions, and request to report all unreported ones; returns 0 if it is too early.
local kind = KEYS[1]
local counting = KEYS[2]
local window_ms = tonumber(ARGV[1])
local process = ARGV[2]
local alive_ms = ARGV[3]
local expire_s = ARGV[4]
local moment = ARGV[5]
local repetitions = ARGV[6]

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

if moment == 'close' or (moment == 'hand over' and repetitions == '0') then
    redis.call('ZREM', counting, process)
elseif moment ~= 'window' then
    redis.call('ZADD', counting, now + tonumber(alive_ms), process)
    redis.call('PEXPIRE', counting, alive_ms)
end
local unreported = redis.call('HINCRBY', kind, 'unreported', repetitions)
redis.call('EXPIRE', kind, expire_s)
if moment == 'hand over' or unreported == 0 then return 0 end
local over = tonumber(redis.call('HGET', kind, 'until') or '0') <= now
if not over then
    if moment == 'window' or redis.call('HGET', kind, 'digest') == '1' then return 0 end
    -- Before the end of the window, only a process without others that still count gets a report.
    redis.call('ZREMRANGEBYSCORE', counting, '-inf', now)
    local others = redis.call('ZCARD', counting)
    if redis.call('ZSCORE', counting, process) then others = others - 1 end
    if others > 0 then return 0 end
end
redis.call('HSET', kind, 'until', now + window_ms, 'unreported', 0, 'digest', 1)
return unreported
