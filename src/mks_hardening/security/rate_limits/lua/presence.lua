-- Say that a process is there, and answer how many are, which of them it is, and which life of the data this is:
-- another name means that the server has lost what it had.
local workers, life = KEYS[1], KEYS[2]
local name, lifetime, new_life = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - lifetime)
redis.call('ZADD', workers, now, name)
redis.call('EXPIRE', workers, lifetime)
local before, all = 0, redis.call('ZRANGE', workers, 0, -1)
for _, other in ipairs(all) do
  if other < name then before = before + 1 end
end
redis.call('SET', life, new_life, 'NX')
redis.call('EXPIRE', life, 30 * 86400)
return {#all, before, redis.call('GET', life)}
