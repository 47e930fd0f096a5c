-- Persistence settings of the server: maxmemory-policy, maxmemory and whether it has an append-only file.
-- Empty strings where they are unknown: INFO may be forbidden, or a fake may not support it.
local function section(name)
  local answer = redis.pcall('INFO', name)
  if type(answer) == 'string' then return answer end
  return ''
end

local memory, persistence = section('memory'), section('persistence')
return {
  string.match(memory, '[\r\n]maxmemory_policy:([^\r\n]*)') or '',
  string.match(memory, '[\r\n]maxmemory:(%d+)') or '',
  string.match(persistence, '[\r\n]aof_enabled:(%d)') or '',
}
