-- Ban clients for a time, or lift their bans. Keys as in strike.lua.
-- ARGV: most bans, id for a new state, then for each client: client, milliseconds (0 lifts), reason.
-- Returns for each client 1 if it has been banned before, else 0. A ban never becomes shorter, so sending the same
-- change again is harmless.
local answer = {}
for i = 4, #KEYS do
  local at = 2 + (i - 4) * 3
  local client, length, reason = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local ends = tonumber(redis.call('ZSCORE', KEYS[1], client) or '0')
  answer[#answer + 1] = ends > now and 1 or 0
  if length == 0 then
    redis.call('ZREM', KEYS[1], client)
    redis.call('HDEL', KEYS[2], client)
    redis.call('DEL', KEYS[i])
  elseif now + length > ends then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + length), client)
    redis.call('HSET', KEYS[2], client, reason)
  end
end
note_change(ARGV[1], ARGV[2])
return answer
