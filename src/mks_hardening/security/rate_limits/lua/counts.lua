-- All other windows: a hash with one field for each limit, and the latest moment that it has seen.
local values = redis.call('HMGET', hash, unpack(fields))
local seen = tonumber(values[1] or 0)
since = tonumber(values[2] or 0)
now = max(now, seen)
if known > now - hash_lasts and (seen < known or since > known) then lost = true end
if seen > 0 and (newest == 0 or seen < newest) then newest = seen end
for i = 1, #limits do
  local limit = limits[i]
  if limit.place then limit.stored = values[limit.place] end
end

function keep_hash(lasting)
  local written = {'now', format('%.0f', now)}
  if seen == 0 then written[3], written[4] = 'since', format('%.0f', since > 0 and since or now) end
  for i = 1, #limits do
    local limit = limits[i]
    if limit.stored then written[#written + 1], written[#written + 2] = limit.field, limit.stored end
  end
  redis.call('HSET', hash, unpack(written))
  keep_for(hash, lasting)
end
