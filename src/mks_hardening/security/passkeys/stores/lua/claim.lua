-- Claim a credential for the given user if it has no owner; returns the owner. Safe to repeat.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
