-- The next cursor, then user ids. HSCAN also returns the records, which are not needed here.
local hash = KEYS[1]
local cursor, number = ARGV[1], ARGV[2]

local answer = redis.call('HSCAN', hash, cursor, 'COUNT', number)
local found = {answer[1]}
for i = 1, #answer[2], 2 do found[#found + 1] = answer[2][i] end
return found
