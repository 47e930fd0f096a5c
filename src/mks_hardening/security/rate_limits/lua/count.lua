-- Check every limit of a group, and count the hits if all of them allow it: all or nothing, one round trip.
-- Returns the generation of the data, the moment of the hits (0 if none were counted), then for each limit: hits
-- left, microseconds to the full quota, microseconds until a refused hit fits. If the caller knows another
-- generation, the result ends before the limits: the caller first restores what this server has lost.
local answer, fits = {generation, 0}, true
if known > 0 and generation ~= known then return answer end
for i = 1, #limits do
  local limit = limits[i]
  local remaining, reset, retry = peek[limit.kind](limit)
  answer[3 * i], answer[3 * i + 1], answer[3 * i + 2] = remaining, reset, retry
  if retry > 0 then fits = false end
end
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
