-- Register a process. Returns the number of processes, its index among them, the generation of the data, and how many
-- processes have registered in the last milliseconds. A generation is the moment at which this script found none, or one
-- older than its caller knows: then the server has lost data. Generations only increase.
local workers, generation = KEYS[1], KEYS[2]
local name, lifetime, known, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local moment = redis.call('TIME')
local now = moment[1] * 1000 + math.floor(moment[2] / 1000)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - 1000 * lifetime)
redis.call('ZADD', workers, now, name)
redis.call('EXPIRE', workers, lifetime)
local before, all = 0, redis.call('ZRANGE', workers, 0, -1)
for _, other in ipairs(all) do
  if other < name then before = before + 1 end
end
local found = tonumber(redis.call('GET', generation) or 0)
if found == 0 or found < known then found = math.max(moment[1] * 1000000 + moment[2], known + 1) end
redis.call('SET', generation, string.format('%.0f', found), 'EX', 30 * 86400)
return {#all, before, found, redis.call('ZCOUNT', workers, now - last, '+inf')}
