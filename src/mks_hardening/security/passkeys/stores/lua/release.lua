-- Remove a credential if it belongs to the given user; returns 1 if it did.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
