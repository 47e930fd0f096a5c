local key = ARGV[2]

return {redis.call('TIME'), read(key, 'u', 'c', 't', 'x', 'd', 'v', 'e')}
