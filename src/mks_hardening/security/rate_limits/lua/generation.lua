-- The generation of the data is the moment at which a script found none, or one older than its caller knows: then the
-- server has lost data. Generations only increase.
local function generation_of(place, known, microseconds)
  local found = tonumber(redis.call('GET', place) or 0)
  if found == 0 or found < known then
    found = math.max(microseconds, known + 1)
    redis.call('SET', place, string.format('%.0f', found), 'EX', 30 * 86400)
  end
  return found
end
