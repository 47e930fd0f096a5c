-- Check every limit of a group, and count the hits if all of them allow it: all or nothing, one round trip.
-- If data is lost, the answer ends before the limits: the caller first restores what it knows.
if lost then return {now, -newest} end
local answer, fits = answer_of(limits)
if not fits or ARGV[1] ~= '1' then return answer end

answer[2] = now
local kept, longest, lasting = 0, 0, 0
for i = 1, #limits do
  local limit = limits[i]
  local reset, ttl = add[limit.kind](limit)
  answer[3 * i], answer[3 * i + 1] = answer[3 * i] - cost, reset
  if limit.kind == 'e' then
    longest, kept = max(longest, ttl), max(kept, limit.quota)
  else
    lasting = max(lasting, ttl)
  end
end
if kept > 0 then
  local hit = format('%.0f', now)
  for _ = 1, cost do redis.call('RPUSH', list, hit) end
  keep_list(length + cost, kept, longest)
  add_to_hash()
else
  add_to_list()
end
if lasting > 0 then keep_hash(lasting) end
return answer
