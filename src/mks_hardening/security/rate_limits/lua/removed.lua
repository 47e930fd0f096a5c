-- Store when hits of this key were removed, and the newest moment and the length of the list that is left: what a caller
-- saw before is not restored, except from a list that is lost later. The limits are defined before this script.
local time, longest = redis.call('TIME'), 0
for _, limit in ipairs(limits) do longest = math.max(longest, math.ceil(2 * limit.window / 1000)) end
local removed = string.format('%.0f', time[1] * 1000000 + time[2])
local left = string.format('%.0f %.0f', tonumber(redis.call('LINDEX', KEYS[1], -1) or 0), redis.call('LLEN', KEYS[1]))
redis.call('HSET', KEYS[2], 'removed', removed .. ' ' .. left)
if redis.call('PTTL', KEYS[2]) < longest then redis.call('PEXPIRE', KEYS[2], longest) end
