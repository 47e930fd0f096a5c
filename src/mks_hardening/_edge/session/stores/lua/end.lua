local key, reason = ARGV[2], ARGV[3]

return bury(key, reason)
