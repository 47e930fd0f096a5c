-- How this server treats its data: maxmemory-policy, maxmemory and whether it keeps an append-only file.
-- Empty texts where the server does not tell: INFO may be forbidden, or a fake may not know it.
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
