-- Release the last reservation if no other followed it: a schedule has no gaps.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], string.format('%.0f', ARGV[1] - ARGV[2]), 'KEEPTTL')
  return 1
end
return 0
