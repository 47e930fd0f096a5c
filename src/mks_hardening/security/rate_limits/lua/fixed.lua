-- Fixed windows: the moment of the first hit and their number.
function peek.f(limit)
  local start, used = 0, 0
  if limit.stored then
    start, used = string.match(limit.stored, '(%d+) (%d+)')
    start, used = tonumber(start), tonumber(used)
  end
  local left, retry = start + limit.window - now, 0
  if used == 0 or left <= 0 then start, used, left = now, 0, 0 end
  limit.start, limit.used = start, used
  if used + cost > limit.quota then retry = left end
  return max(0, limit.quota - used), left, retry
end

function add.f(limit)
  limit.stored = format('%.0f %.0f', limit.start, limit.used + cost)
  return limit.start + limit.window - now, limit.window
end
