-- Time of the server in milliseconds, and what each change of the bans has in common.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- The state has an id, which changes if the data is lost, and a number that grows with each change.
local function note_change(most, id)
  redis.call('HSETNX', KEYS[3], 'id', id)
  redis.call('HINCRBY', KEYS[3], 'number', 1)
  local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(most)
  for _, client in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)) do
    redis.call('ZREM', KEYS[1], client)
    redis.call('HDEL', KEYS[2], client)
    surplus = surplus - 1
  end
  if surplus > 0 then
    for _, client in ipairs(redis.call('ZRANGE', KEYS[1], 0, surplus - 1)) do
      redis.call('ZREM', KEYS[1], client)
      redis.call('HDEL', KEYS[2], client)
    end
  end
end
