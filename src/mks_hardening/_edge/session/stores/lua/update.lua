local key, version, data = ARGV[2], tonumber(ARGV[3]), ARGV[4]

if not lives(key) then return 0 end
if tonumber(redis.call('HGET', session(key), 'v')) ~= version then return 0 end
redis.call('HSET', session(key), 'd', data)
redis.call('HINCRBY', session(key), 'v', 1)
return 1
