-- Store when hits of this key were removed: what a caller saw before is not restored. The limits are defined before this
-- script.
local time, longest = redis.call('TIME'), 0
for _, limit in ipairs(limits) do longest = math.max(longest, math.ceil(2 * limit.window / 1000)) end
redis.call('HSET', KEYS[2], 'removed', string.format('%.0f', time[1] * 1000000 + time[2]))
if redis.call('PTTL', KEYS[2]) < longest then redis.call('PEXPIRE', KEYS[2], longest) end
