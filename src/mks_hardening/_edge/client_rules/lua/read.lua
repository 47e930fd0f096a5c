-- Read all bans, unless the caller knows them. Keys as in strike.lua. ARGV: id for a new state, known id, known number.
-- Returns id and number of the state, and if they differ from the known ones, client, milliseconds left and reason of
-- each ban.
redis.call('HSETNX', KEYS[3], 'id', ARGV[1])
local state = redis.call('HMGET', KEYS[3], 'id', 'number')
local answer = {state[1], state[2] or '0'}
if answer[1] == ARGV[2] and answer[2] == ARGV[3] then return answer end
local bans = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #bans, 2 do
  answer[#answer + 1] = bans[i]
  answer[#answer + 1] = tonumber(bans[i + 1]) - now
  answer[#answer + 1] = redis.call('HGET', KEYS[2], bans[i]) or ''
end
return answer
