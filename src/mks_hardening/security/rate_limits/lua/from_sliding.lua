-- Limits that are or were counted in sliding windows by another release and are counted exactly here: another quota, or
-- another strategy. If there is no list yet, the hits of the sliding window are added to it.
local found, rows, sliding = redis.call('HMGET', hash, unpack(sliding_fields)), {}, {}
local number = 0
for _, limit in ipairs(limits) do
  if limit.kind == 'e' then
    number = number + 1
    local lacking = 0
    if found[number] then
      local other = {quota = limit.quota, window = limit.window, stored = found[number], field = sliding_fields[number]}
      sliding[#sliding + 1] = other
      if length == 0 then lacking = max(0, peek.e(limit) - peek.s(other)) end
    end
    rows[#rows + 1] = {window = limit.window, lacking = lacking}
  end
end
if #sliding > 0 and length == 0 then add_lacking(rows) end

function add_to_hash()
  for _, limit in ipairs(sliding) do
    peek.s(limit)
    add.s(limit)
    redis.call('HSET', hash, limit.field, limit.stored)
  end
end
