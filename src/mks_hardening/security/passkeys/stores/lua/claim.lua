-- Who owns a credential: the user given, where nobody did. Sending again is safe.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
