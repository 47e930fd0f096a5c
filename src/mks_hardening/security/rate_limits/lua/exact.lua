-- Exact windows: one list with the moments of the last hits.
local hits, length = {}, redis.call('LLEN', list)
local function hit_at(index)
  if not hits[index] then hits[index] = tonumber(redis.call('LINDEX', list, index)) end
  return hits[index]
end
if length > 0 then
  oldest, newest = floor(hit_at(0)), floor(hit_at(length - 1))
  now = max(now, newest)
end
if known > now - list_lasts then
  -- Without windows of other kinds, the hash only exists after a restoration or a reset.
  if hash_lasts == 0 then since = tonumber(redis.call('HGET', hash, 'since') or 0) end
  if length == 0 or oldest > known or newest < known or since > known then lost = true end
end

function peek.e(limit)
  local low, high, edge = max(0, length - limit.quota), length, now - limit.window
  if low < high and hit_at(low) > edge then high = low end -- all hits are in the window, as in every new key
  while low < high do
    local middle = floor((low + high) / 2)
    if hit_at(middle) > edge then high = middle else low = middle + 1 end
  end
  local used = length - low
  local excess, retry, reset = used + cost - limit.quota, 0, 0
  if excess > 0 then retry = hit_at(low + excess - 1) + limit.window - now end
  if used > 0 then reset = hit_at(length - 1) + limit.window - now end
  return limit.quota - used, reset, retry
end

function add.e(limit)
  return limit.window, limit.window
end

-- As long as it was at least: another release beside this one may have a larger quota.
local function keep_list(held, most, longest)
  most = max(most, length)
  if held > most then most = hits_to_keep(most, longest) end
  if held > most then redis.call('LTRIM', list, -most, -1) end
  keep_for(list, longest)
end

-- Add the hits that each limit lacks. Those of a long window that a shorter one must not see are put just beyond the
-- shorter one. Half a microsecond marks them as restored: they are evicted together with their mark.
local function add_lacking(rows)
  table.sort(rows, function(one, other) return one.window < other.window end)
  local placed, moment, longest = 0, now, 0
  for _, row in ipairs(rows) do
    for _ = placed + 1, row.lacking do
      redis.call(moment == now and 'RPUSH' or 'LPUSH', list, format('%.1f', floor(moment) - 0.5))
    end
    placed, longest = max(placed, row.lacking), max(longest, row.window)
    local oldest = tonumber(redis.call('LINDEX', list, 0) or now)
    moment = math.min(oldest, now - row.window)
  end
  if placed > 0 then keep_for(list, longest) end
  hits, length = {}, redis.call('LLEN', list)
  newest = length > 0 and floor(hit_at(length - 1)) or 0
end

-- How many hits in the window are restored, or not after a moment.
local function restored_hits(limit, moment)
  local number = 0
  for i = length - 1, 0, -1 do
    local at = hit_at(i)
    if at <= now - limit.window then break end
    if at <= moment or at > floor(at) then number = number + 1 end
  end
  return number
end
