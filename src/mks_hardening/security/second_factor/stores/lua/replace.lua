-- Write or remove a record if its version is still the expected one; 1 when it is done. A field of the hash holds
-- version, newline, data. A version that is in place already means that the answer to an earlier sending was lost:
-- sending again is safe.
local hash = KEYS[1]
local user, expected, version, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local present = redis.call('HGET', hash, user)
local found = present and string.match(present, '^([^\n]*)\n') or ''
if found == version or (data == '' and not present) then return 1 end
if found ~= expected then return 0 end
if data == '' then
  redis.call('HDEL', hash, user)
else
  redis.call('HSET', hash, user, version .. '\n' .. data)
end
return 1
