local key, user, name, created, seen, expires, data = unpack(ARGV, 2, 8)
local now_text, now, ttl = ARGV[9], tonumber(ARGV[9]), tonumber(ARGV[10])
local replaces, most, retention = ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])

if redis.call('EXISTS', session(key)) == 1 then return {} end
redis.call('HSET', session(key), 'u', user, 'i', name, 'c', created, 't', seen, 'x', expires, 'd', data, 'v', 0)
redis.call('PEXPIRE', session(key), ttl)
list(name, created, key, ttl)
if replaces ~= '' then succeed(replaces, 'replaced', now_text, retention) end
local ended = {}
if most > 0 then -- as surplus_sessions in session_rules.py
  local others = living(name, now)
  local excess = #others - most
  for _, other in ipairs(others) do
    if excess > 0 and other ~= key then
      bury(other, 'revoked')
      table.insert(ended, other)
      excess = excess - 1
    end
  end
end
return ended
