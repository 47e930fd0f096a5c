-- Write an entry if its version is still the expected one; 1 when it is done. A value holds version, newline, data.
-- A version that is in place already means that the answer to an earlier sending was lost: sending again is safe.
local key = KEYS[1]
local expected, version, data, milliseconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local present = redis.call('GET', key)
local found = present and string.match(present, '^([^\n]*)\n') or ''
if found == version then return 1 end
if found ~= expected then return 0 end
redis.call('SET', key, version .. '\n' .. data, 'PX', milliseconds)
return 1
