-- The generation of the data in one hash slot of a cluster, beside the run id of the server that wrote it. A new one
-- begins when a script finds none (lost data), one older than its caller knows (old data), or another server: a replica
-- that lacks data, or a server started from an old snapshot. Generations only increase.
local function generation_of(place, known, microseconds)
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  local found, writer = string.match(redis.call('GET', place) or '', '(%d+) (%w*)')
  found = tonumber(found or 0)
  if found == 0 or found < known or writer ~= run then
    found = math.max(microseconds, known + 1, found + 1)
    redis.call('SET', place, string.format('%.0f %s', found, run), 'EX', 30 * 86400)
  end
  return found
end
