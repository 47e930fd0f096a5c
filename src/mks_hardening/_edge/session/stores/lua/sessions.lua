local name, now = ARGV[2], tonumber(ARGV[3])

local found = {}
for _, key in ipairs(living(name, now)) do table.insert(found, {key, fields(key)}) end
return found
