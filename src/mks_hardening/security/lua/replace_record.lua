-- Write or remove a record if its version is still the expected one; 1 when it is done. A record is a field of a hash,
-- which stays until it is removed by empty data, or without a field a whole key with an expiry. It holds version,
-- newline, data. If the record already has the new version, the response to an earlier call was lost: a repeated
-- call is safe.
local key = KEYS[1]
local field, expected, version, data, milliseconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local in_hash = field ~= ''
local removed = in_hash and data == ''
local present
if in_hash then present = redis.call('HGET', key, field) else present = redis.call('GET', key) end
local found = present and string.match(present, '^([^\n]*)\n') or ''
if found == version or (removed and not present) then return 1 end
if found ~= expected then return 0 end
if removed then
  redis.call('HDEL', key, field)
elseif in_hash then
  redis.call('HSET', key, field, version .. '\n' .. data)
else
  redis.call('SET', key, version .. '\n' .. data, 'PX', milliseconds)
end
return 1
