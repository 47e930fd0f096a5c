-- First part of count.lua and restore.lua: the state of each limit of a group for a key, and how hits are counted.
-- The arithmetic is that of _windows.py, on the server's clock. The limits of the group are defined before this text, and
-- the kinds that it uses follow: each group has its own script, so that no hit sends or sets up its limits again.
local list, hash = KEYS[1], KEYS[2]
local cost = tonumber(ARGV[2])
local floor, max, format = math.floor, math.max, string.format

local known = tonumber(ARGV[3])

local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
-- Only a test has no key of the generation.
local generation = KEYS[3] and generation_of(KEYS[3], known, now) or known

-- By kind; `peek` returns hits left, microseconds to the full quota, and until a refused hit fits.
local peek, add = {}, {}

-- Never for less time than before: another release beside this one may count a longer window.
local function keep_for(key, microseconds)
  local milliseconds = math.ceil(microseconds / 1000)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

local function keep_hash(lasting)
  keep_for(hash, lasting)
end

-- Another release may count the same limit in the other way (exact or sliding, `from_*.lua`) at the same time: what is
-- counted here is added to its count as well, if it has one.
local function add_to_list() end
local function add_to_hash() end
-- How many hits the list keeps where this release needs `most`.
local function hits_to_keep(most) return most end
