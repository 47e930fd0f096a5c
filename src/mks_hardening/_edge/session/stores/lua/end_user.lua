local name, now, keep = ARGV[2], tonumber(ARGV[3]), ARGV[4]

local number = 0
for _, key in ipairs(redis.call('ZRANGE', index(name), 0, -1)) do
  if key ~= keep then
    local expires = tonumber(read(key, 'x')[1] or '') or 0
    local ended = bury(key, 'revoked')
    if expires > now then number = number + ended end
  end
end
return number
