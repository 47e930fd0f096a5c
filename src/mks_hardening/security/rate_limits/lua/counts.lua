-- All other windows: a hash with one field for each limit, and the latest moment that it has seen.
local values = redis.call('HMGET', hash, unpack(fields))
if values[1] then now = max(now, tonumber(values[1])) end
for i = 1, #limits do
  local limit = limits[i]
  if limit.place then limit.stored = values[limit.place] end
end

function keep_hash(lasting)
  local written = {'now', format('%.0f', now)}
  for i = 1, #limits do
    local limit = limits[i]
    if limit.stored then written[#written + 1], written[#written + 2] = limit.field, limit.stored end
  end
  redis.call('HSET', hash, unpack(written))
  keep_for(hash, lasting)
end
