-- Acquire the lease of a key unless it is held, and read the value in the same step, so that a caller that
-- waited for another finds what that one stored. A lease of an earlier generation counts as free: its value would be
-- invalid. A caller that will wait leaves a mark, for which the holder pushes an element to the list WAKE when it has
-- finished. Returns whether the lease was acquired, and the value.
local lease, value, wake = KEYS[1], KEYS[2], KEYS[3]
local token, alive_ms, kept_ms, waits, generation = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', lease, 'token', 'until', 'generation')
local is_cleared = held[3] and held[3] ~= generation

local ours = 0
if held[1] == token or not held[2] or tonumber(held[2]) <= now or is_cleared then
  redis.call('DEL', lease, wake)
  redis.call('HSET', lease, 'token', token, 'until', string.format('%d', now + alive_ms), 'generation', generation)
  redis.call('PEXPIRE', lease, kept_ms)
  ours = 1
elseif waits == '1' then
  redis.call('HSET', lease, 'waiting', '1')
end
-- MGET: GET fails on data of another type, which then no computation could replace.
return {ours, redis.call('MGET', value)[1]}
