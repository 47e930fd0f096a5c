-- Limits that were counted exactly and are counted in sliding windows from now on: another quota, or another strategy.
-- Where there is no count yet, the list has all hits that still matter.
for _, limit in ipairs(limits) do
  if limit.kind == 's' and not limit.stored then
    local index, present, former = floor(now / limit.window), 0, 0
    for _, moment in ipairs(redis.call('LRANGE', list, -10000, -1)) do
      local at = floor(tonumber(moment) / limit.window)
      if at == index then present = present + 1 elseif at == index - 1 then former = former + 1 end
    end
    if present + former > 0 then limit.stored = format('%.0f %.0f %.0f', index, present, former) end
  end
end
