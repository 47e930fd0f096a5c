-- Reserve the next free moment of a schedule. Returns whether it was reserved (0: it is too far ahead), the moment, the
-- current time, and the end of all reservations.
local schedule = KEYS[1]
local spacing, cost, burst, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known = tonumber(ARGV[5]) -- microseconds for which the caller knows it to be reserved

local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
local till = math.max(tonumber(redis.call('GET', schedule) or 0), now + known)
local start = math.max(till - (burst - 1) * spacing, now)
if start - now > longest then return {0, start, now, till} end
till = math.max(till, start) + cost * spacing
redis.call('SET', schedule, string.format('%.0f', till), 'PX', math.ceil((till - now) / 1000))
return {1, start, now, till}
