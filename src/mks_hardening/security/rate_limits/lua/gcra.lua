-- GCRA: the theoretical arrival time.
function peek.g(limit)
  limit.spacing = math.ceil(limit.window / limit.quota)
  limit.ahead = max(0, tonumber(limit.stored or 0) - now)
  local burst = limit.spacing * limit.quota
  local late = limit.ahead + cost * limit.spacing - burst
  return max(0, floor((burst - limit.ahead) / limit.spacing)), limit.ahead, max(0, late)
end

function add.g(limit)
  local ahead = limit.ahead + cost * limit.spacing
  limit.stored = format('%.0f', now + ahead)
  return ahead, limit.spacing * limit.quota
end
