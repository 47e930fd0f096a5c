-- The beginning of count.lua and restore.lua: where each limit of a group stands for a key, and how it takes hits.
-- Arithmetic as in _windows.py, on the server's clock. The limits of the group stand before this text, and only the
-- kinds that it has come after: one script for each group, so that nothing is sent or set up anew with every hit.
local list, hash = KEYS[1], KEYS[2]
local cost = tonumber(ARGV[2])
local floor, max, format = math.floor, math.max, string.format

local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]

-- By kind; `look` answers hits left, microseconds to the full quota, and until a refused hit fits.
local look, take = {}, {}
