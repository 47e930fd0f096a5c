-- Remove hits counted at one moment. Requests that they caused to be refused stay refused. The limits are defined before this script.
local list, hash = KEYS[1], KEYS[2]
local moment, cost = ARGV[1], tonumber(ARGV[2])

local at = tonumber(moment)
local function format(...)
  return string.format(string.sub(string.rep('%.0f ', select('#', ...)), 1, -2), ...)
end
redis.call('LREM', list, -cost, moment)
for _, limit in ipairs(limits) do
  local kind, field, quota, window = limit.kind, limit.field, limit.quota, limit.window
  -- An exact limit has a field where another release counts it in sliding windows.
  if kind == 'e' then kind, field = 's', 's' .. string.sub(field, 2) end
  local value = redis.call('HGET', hash, field)
  if value then
    local a, b, c = string.match(value, '(%d+) ?(%d*) ?(%d*)')
    a, b, c = tonumber(a), tonumber(b), tonumber(c)
    if kind == 's' then
      local index = math.floor(at / window)
      if index == a then b = math.max(0, b - cost) elseif index == a - 1 then c = math.max(0, c - cost) end
      value = format(a, b, c)
    elseif kind == 'f' then
      if at >= a then b = math.max(0, b - cost) end
      value = format(a, b)
    else
      value = format(math.max(0, a - cost * math.ceil(window / quota)))
    end
    redis.call('HSET', hash, field, value)
  end
end
