-- The generation of the data beside a key, for a caller that knows an earlier one.
local moment = redis.call('TIME')
return generation_of(KEYS[1], tonumber(ARGV[1]), moment[1] * 1000000 + moment[2])
