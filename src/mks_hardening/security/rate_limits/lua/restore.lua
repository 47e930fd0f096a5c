-- Add hits that this server has not counted. ARGV has two numbers for each limit: the count at the last call, of which
-- the server gets what it lacks, and the hits that a process has allowed since. Cost is 0 here at first: no hit is tested.
-- Several processes restore the earlier count; the largest wins. The field "b:..." stores how much of the current count
-- was restored, because hits counted in this generation are not part of the counts that the processes knew.
local before, since = {}, {}
for was, more in string.gmatch(ARGV[1], '(%d+) (%d+)') do
  before[#before + 1], since[#since + 1] = tonumber(was), tonumber(more)
end

local exact, lasting = {}, 0
for i, limit in ipairs(limits) do
  local remaining = peek[limit.kind](limit)
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
    local _, ttl = add[limit.kind](limit)
    lasting = max(lasting, ttl)
  end
end
if #exact > 0 then add_lacking(exact) end
keep_hash(lasting)
return 1
