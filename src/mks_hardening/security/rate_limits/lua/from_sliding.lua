-- Limits that were counted in sliding windows and are counted exactly from now on: another quota, or another strategy.
-- What the sliding window says was used is put into the list, where it is lacking, and the list counts alone.
local found, rows, sliding = redis.call('HMGET', hash, unpack(sliding_fields)), {}, {}
local number = 0
for _, limit in ipairs(limits) do
  if limit.kind == 'e' then
    number = number + 1
    local lacking = 0
    if found[number] then
      sliding[#sliding + 1] = sliding_fields[number]
      local left = look.s({quota = limit.quota, window = limit.window, stored = found[number]})
      lacking = max(0, look.e(limit) - left)
    end
    rows[#rows + 1] = {window = limit.window, quota = limit.quota, lacking = lacking}
  end
end
if #sliding > 0 then
  add_lacking(rows)
  redis.call('HDEL', hash, unpack(sliding))
end
