-- First part of count.lua and restore.lua: the state of each limit of a group for a key, and how hits are counted.
-- The arithmetic is that of _windows.py, on the server's clock. The limits of the group are defined before this text, and
-- the kinds that it uses follow: each group has its own script, so that no hit sends or sets up its limits again.
local list, hash = KEYS[1], KEYS[2]
local cost = tonumber(ARGV[2])
local floor, max, format = math.floor, math.max, string.format

local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]

-- What the caller has seen, in microseconds of this clock: the newest hits (0: none), and the latest time that this clock
-- can show now. If the data does not have these hits, or they have expired too early, it is lost: evicted, flushed, an
-- old snapshot, a replica that lacks data, a clock that was set forward.
local known, latest = tonumber(ARGV[3]), tonumber(ARGV[4])
local lost = known > 0 and now > latest
-- The oldest hits of the list, the newest of list and hash, and the time of the first restoration, or of the creation of
-- the hash: what was seen before it is not in the data.
local oldest, newest, since = 0, 0, 0

-- By kind; `peek` returns hits left, microseconds to the full quota, and until a refused hit fits.
local peek, add = {}, {}

-- The time, the moment of the hits (if none are counted, the negative of the newest ones), then what `peek` returns for
-- each limit; and whether the hit fits.
local function answer_of(limits)
  local answer, fits = {now, -newest}, true
  for i = 1, #limits do
    local limit = limits[i]
    local remaining, reset, retry = peek[limit.kind](limit)
    answer[3 * i], answer[3 * i + 1], answer[3 * i + 2] = remaining, reset, retry
    if retry > 0 then fits = false end
  end
  return answer, fits
end

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
