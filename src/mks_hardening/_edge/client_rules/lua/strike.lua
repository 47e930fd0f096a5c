-- Count offences of clients and ban those with enough of them; the rules are those of StrikeCounter. All times are
-- milliseconds of the server's clock.
-- KEYS: bans (sorted set: client by end), reasons (hash), state (hash), then the record of each client.
-- ARGV: most bans, id for a new state, then for each client: client, rule, count, strikes, within, ban, growth,
-- longest, forget.
-- Returns for each client the milliseconds of its ban (negative if it was banned before), or 0.
local answer, changed = {}, false
for i = 4, #KEYS do
  local at = 2 + (i - 4) * 9
  local client, rule = ARGV[at + 1], ARGV[at + 2]
  local count, strikes, within = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local first, growth = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  local longest, forget = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])
  local ends = tonumber(redis.call('ZSCORE', KEYS[1], client) or '0')
  if ends > now then
    answer[#answer + 1] = now - ends
  else
    local record = KEYS[i]
    local found = redis.call('HMGET', record, rule .. ':times', rule .. ':bans', rule .. ':ended')
    local times = {}
    for time in string.gmatch(found[1] or '', '%d+') do
      if tonumber(time) > now - within then times[#times + 1] = time end
    end
    for _ = 1, math.min(count, strikes) do times[#times + 1] = string.format('%.0f', now) end
    local keep = within
    if #times < strikes then
      redis.call('HSET', record, rule .. ':times', table.concat(times, ' '))
      answer[#answer + 1] = 0
    else
      local bans = tonumber(found[2] or '0')
      if tonumber(found[3] or '0') + forget <= now then bans = 0 end
      local length = math.floor(math.min(longest, first * growth ^ bans))
      local till = string.format('%.0f', now + length)
      redis.call('ZADD', KEYS[1], till, client)
      redis.call('HSET', KEYS[2], client, rule)
      redis.call('HDEL', record, rule .. ':times')
      redis.call('HSET', record, rule .. ':bans', bans + 1, rule .. ':ended', till)
      keep = length + forget
      answer[#answer + 1] = length
      changed = true
    end
    if redis.call('PTTL', record) < keep then redis.call('PEXPIRE', record, string.format('%.0f', keep)) end
  end
end
if changed then note_change(ARGV[1], ARGV[2]) end
return answer
