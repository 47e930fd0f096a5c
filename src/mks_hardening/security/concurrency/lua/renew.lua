-- Extend leases, and acquire expired ones again: a running holder always counts. Returns 1 for each slot that was held
-- without interruption, else 0.
local slots, lease = KEYS[1], tonumber(ARGV[1])

local moment = redis.call('TIME')
local now = moment[1] * 1000 + math.floor(moment[2] / 1000)
local held = {}
for i = 2, #ARGV do
  local till = redis.call('ZSCORE', slots, ARGV[i])
  held[i - 1] = till and tonumber(till) > now and 1 or 0
  redis.call('ZADD', slots, now + lease, ARGV[i])
end
redis.call('PEXPIRE', slots, 2 * lease)
return held
