-- Sliding windows: index and hits of the current window, hits of the previous one.
function peek.s(limit)
  local window = limit.window
  local index, present, former = floor(now / window), 0, 0
  if limit.stored then
    local at, last, before = string.match(limit.stored, '(%d+) (%d+) (%d+)')
    at = tonumber(at)
    if at == index then present, former = tonumber(last), tonumber(before)
    elseif at == index - 1 then former = tonumber(last) end
  end
  limit.present, limit.former, limit.index = present, former, index
  local left = window - now % window
  local free = (limit.quota - present) * window - former * left
  local retry, reset, room = 0, 0, limit.quota - cost
  if present > 0 then reset = left + window elseif former > 0 then reset = left end
  if cost * window > free then
    if present <= room then retry = left - floor((room - present) * window / former)
    else retry = left + window - floor(room * window / present) end
  end
  return max(0, floor(free / window)), reset, retry
end

function add.s(limit)
  limit.stored = format('%.0f %.0f %.0f', limit.index, limit.present + cost, limit.former)
  return 2 * limit.window - now % limit.window, 2 * limit.window
end
