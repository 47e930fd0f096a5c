-- The beginning of count.lua and restore.lua: where each limit of a group stands for a key, and how it takes hits.
-- Arithmetic as in _windows.py, on the server's clock. The limits of the group stand before this text, and only the
-- kinds that it has come after: one script for each group, so that nothing is sent or set up anew with every hit.
local list, hash = KEYS[1], KEYS[2]
local cost = tonumber(ARGV[2])
local floor, max, format = math.floor, math.max, string.format

local known = tonumber(ARGV[3])

local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
-- Only a test has no key of the generation.
local generation = KEYS[3] and generation_of(KEYS[3], known, now) or known

-- By kind; `look` answers hits left, microseconds to the full quota, and until a refused hit fits.
local look, take = {}, {}

-- Never for less time than before: another release beside this one may count a longer window.
local function keep_for(key, microseconds)
  local milliseconds = math.ceil(microseconds / 1000)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

local function keep_hash(lasting)
  keep_for(hash, lasting)
end

-- Another release may count the same limit in the other way (exact or sliding, `from_*.lua`) at the same time: what is
-- taken here is put into its count as well, where it has one.
local function take_in_list() end
local function take_in_hash() end
