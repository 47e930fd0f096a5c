-- Add hits that this server has not counted, and return the count as a hit that does not fit. ARGV has two numbers for
-- each limit: the count that the caller has seen, of which lost data gets what it lacks, and the hits that the caller has
-- allowed since. Cost is 0 here at first: no hit is tested. Several processes restore what they have seen; the largest
-- count wins. Hits counted since the loss are not part of what the processes have seen: a field "b:..." of the hash
-- stores how much of a count was restored.
local before, allowed = {}, {}
for was, more in string.gmatch(ARGV[1], '(%d+) (%d+)') do
  before[#before + 1], allowed[#allowed + 1] = tonumber(was), tonumber(more)
end
-- Hits that were given back or reset after the caller saw them are not restored, except those that were left in a list
-- that was lost after that: the hash has its length and its newest moment.
local removed, kept, left = string.match(redis.call('HGET', hash, 'removed') or '', '(%d+) ?(%d*) ?(%d*)')
local only_list = lost and (tonumber(removed) or 0) >= known
if only_list then
  kept, left = tonumber(kept) or 0, tonumber(left) or 0
  lost = list_lasts > 0 and kept > now - list_lasts and (length == 0 or oldest > kept or newest < kept)
end
local restored_at = since > known and since or 0

local exact, lasting = {}, 0
for i, limit in ipairs(limits) do
  local remaining = peek[limit.kind](limit)
  local lacking = allowed[i]
  if lost then
    -- Old data has a part of what the caller has seen; of new data, only what was restored.
    local base, place = limit.quota - remaining, 'b' .. string.sub(limit.field, 2)
    local was = before[i]
    if only_list then was = limit.kind == 'e' and math.min(was, left) or 0 end
    if limit.kind == 'e' then
      if oldest > known then base = restored_hits(limit, 0)
      elseif restored_at > 0 then base = restored_hits(limit, restored_at) end
    else
      if restored_at > 0 then base = tonumber(redis.call('HGET', hash, place)) or 0 end
      redis.call('HSET', hash, place, format('%.0f', max(base, was)))
    end
    lacking = lacking + max(0, was - base)
  end
  lacking = math.min(remaining, lacking)
  lasting = max(lasting, limit.window)
  if limit.kind == 'e' then
    exact[#exact + 1] = {window = limit.window, lacking = lacking}
  else
    cost = lacking
    local _, ttl = add[limit.kind](limit)
    lasting = max(lasting, ttl)
  end
end
newest, cost = now, 0
if #exact > 0 then add_lacking(exact) end
if lost and restored_at == 0 then
  -- Not after the newest hits, or the caller, who has seen these, would take them for lost again.
  since = newest > 0 and math.min(newest, now - 1) or now - 1
  redis.call('HSET', hash, 'since', format('%.0f', since))
end
keep_hash(lasting)
return (answer_of(limits))
