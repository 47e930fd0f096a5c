-- Limits that are or were counted exactly by another release and are counted in sliding windows here: another quota, or
-- another strategy. Where there is no count yet, the list has all hits that still matter.
local listed = redis.call('LLEN', list)
for _, limit in ipairs(limits) do
  if listed > 0 and limit.kind == 's' and not limit.stored then
    local index, present, former = floor(now / limit.window), 0, 0
    for _, moment in ipairs(redis.call('LRANGE', list, -10000, -1)) do
      local at = floor(tonumber(moment) / limit.window)
      if at == index then present = present + 1 elseif at == index - 1 then former = former + 1 end
    end
    if present + former > 0 then limit.stored = format('%.0f %.0f %.0f', index, present, former) end
  end
end

-- The list is not kept for longer: without hits of the other release it expires.
function add_to_list()
  if listed == 0 then return end
  for _ = 1, math.min(cost, 10000) do redis.call('RPUSH', list, format('%.0f', now)) end
  redis.call('LTRIM', list, -10000, -1)
end

-- A list that is kept for longer than the exact windows of this group is that of another release: what it still counts
-- is not removed here.
function hits_to_keep(most, longest)
  if redis.call('PTTL', list) > math.ceil(longest / 1000) then return max(most, 10000) end
  return most
end
