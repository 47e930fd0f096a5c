-- Make the given user the owner of a credential that has none; returns the owner. Safe to repeat.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
