-- Begin a new generation if this is not the server that was seen last: it may have been restored from an old
-- snapshot, or be a replica that lacks data. Runs when a server does not know the scripts, which a restart removes.
local generation, server = KEYS[1], KEYS[2]
local info = redis.pcall('INFO', 'server')
local id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
if not id or redis.call('GET', server) == id then return 0 end
redis.call('SET', server, id, 'EX', 30 * 86400)
local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
generation_of(generation, tonumber(redis.call('GET', generation) or 0) + 1, now)
return 1
