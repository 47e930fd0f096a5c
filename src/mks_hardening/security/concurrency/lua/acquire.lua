-- Acquire a slot unless all are held. Returns 1 or 0, the number of held slots, and after a refusal the milliseconds until
-- the first lease expires. Acquiring it again with the same token only extends its lease.
local slots = KEYS[1]
local token, quota, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local moment = redis.call('TIME')
local now = moment[1] * 1000 + math.floor(moment[2] / 1000)
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
local held = redis.call('ZCARD', slots)
local mine = redis.call('ZSCORE', slots, token)
if not mine and held >= quota then
  local first = redis.call('ZRANGE', slots, 0, 0, 'WITHSCORES')
  return {0, held, first[2] and first[2] - now or 0}
end
redis.call('ZADD', slots, now + lease, token)
redis.call('PEXPIRE', slots, 2 * lease)
return {1, mine and held or held + 1, 0}
