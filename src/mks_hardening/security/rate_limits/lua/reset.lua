-- Drop all hits of a key.
redis.call('DEL', KEYS[1], KEYS[2])
