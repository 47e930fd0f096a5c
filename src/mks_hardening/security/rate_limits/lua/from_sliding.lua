-- Limits that are or were counted in sliding windows by another release and are counted exactly here: another quota, or
-- another strategy. If the list has not been kept for the window yet, the hits of the sliding window are added to it.
local found, rows, sliding = redis.call('HMGET', hash, unpack(sliding_fields)), {}, {}

-- Every release that counts a window exactly keeps the list for that long.
local function is_kept_for(window)
  if length == 0 then return false end
  local shorter = 0
  for _, limit in ipairs(limits) do
    if limit.kind == 'e' and limit.window < window then shorter = max(shorter, limit.window) end
  end
  return redis.call('PTTL', list) > math.ceil(shorter / 1000)
end

local number, most = 0, 0
for _, limit in ipairs(limits) do
  if limit.kind == 'e' then
    number = number + 1
    local lacking = 0
    if found[number] then
      local other = {quota = limit.quota, window = limit.window, stored = found[number], field = sliding_fields[number]}
      sliding[#sliding + 1] = other
      if not is_kept_for(limit.window) then lacking = max(0, peek.e(limit) - peek.s(other)) end
    end
    rows[#rows + 1] = {window = limit.window, lacking = lacking}
    most = max(most, lacking)
  end
end
if most > 0 then add_lacking(rows) end

function add_to_hash()
  for _, limit in ipairs(sliding) do
    peek.s(limit)
    add.s(limit)
    redis.call('HSET', hash, limit.field, limit.stored)
  end
end
