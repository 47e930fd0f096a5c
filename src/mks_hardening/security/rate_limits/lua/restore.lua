-- Count hits that this server does not know of. For each limit two numbers: what had been counted when it was asked
-- last, of which it gets what it lacks, and what a process has let pass since. Here cost is 0 at first: nothing is asked.
-- Several processes restore what was before; the largest counts. The field "b:..." keeps how much of the present count
-- was there before: what was counted in this generation is no part of what they knew.
local before, since = {}, {}
for was, more in string.gmatch(ARGV[1], '(%d+) (%d+)') do
  before[#before + 1], since[#since + 1] = tonumber(was), tonumber(more)
end

local exact, lasting = {}, 0
for i, limit in ipairs(limits) do
  local remaining = look[limit.kind](limit)
  local place = 'b' .. string.sub(limit.field, 2)
  local at, base = string.match(redis.call('HGET', hash, place) or '', '(%d+) (%d+)')
  base = tonumber(at) == generation and tonumber(base) or limit.quota - remaining
  local lacking = math.min(remaining, max(0, before[i] - base) + since[i])
  redis.call('HSET', hash, place, format('%.0f %.0f', generation, max(base, before[i])))
  lasting = max(lasting, limit.window)
  if limit.kind == 'e' then
    exact[#exact + 1] = {window = limit.window, lacking = lacking}
  else
    cost = lacking
    local _, ttl = take[limit.kind](limit)
    lasting = max(lasting, ttl)
  end
end
if #exact > 0 then add_lacking(exact) end
keep_hash(lasting)
return 1
