-- The short way of most calls: groups that only charge or look at buckets, sliding counters and windows. Decides as main.lua
-- does, over the same values, and hands over to it what it does not know. Tables and functions cost more than the commands
-- here, so all is in locals of one loop. Nothing is computed but the decision: who asked computes the rest from what was found.
-- script/mod.rs puts the files of this folder together: begin; in the loop over the steps policy, then window, or state with bucket
-- or counter and value, then keep, write and group; and behind it write and end.
--
-- KEYS: each key once.
-- ARGV: floor of the TTLs (ms, decimal), then one text. Its numbers have the highest byte first:
--   the steps, 13 bytes each: how many more its group has (1 byte); its kind (1 byte): 0 charge, 1 peek, and 2 more for a shadow,
--   and 4 more if its group has other steps, or its key other groups, and 8 more if its key has other groups; key (index in KEYS;
--   2 bytes); where its policy stands (from 1; 2 bytes); cost (7 bytes)
--   the policies, 29 bytes each: algorithm (1 byte), as in main.lua, and four numbers of the quota (7 bytes each)
--   The first step's policy is the first one. A group names a key once.
-- Reply: a text: the time (us; 7 bytes), then for each group, behind a `!` if it is not admitted, what each step found before it:
--   the value of a bucket or a counter, behind a `+` if it is a bucket's long one; `-` for none; for a window `w`, its count and
--   1 more than the time that it has left (ms; 7 bytes each; 0 if there is none). `~` stands before what a shadow found into which
--   its cost does not fit.
-- or only `?`, if the group is handed over: nothing was done.
local HOT_STEP, HOT_POLICY = '>BBI2I2I7', '>BI7I7I7I7'
local SHADOWED, ENTANGLED, SHARED = 2, 4, 8

local call, keys, floor, input = redis.pcall, KEYS, ARGV[1], ARGV[2]
local span = floor + 0
local unpack, pack = struct.unpack, struct.pack
local time = call('TIME')
if time.err then
  return time
end
local now = time[1] * 1000000 + time[2]
local more, kind, key, policy, cost, at = unpack(HOT_STEP, input)
local ends, place = policy, 0
local algorithm, a, b, c, d, e, most, rate

-- What is replied, if more than one step is, and how many parts that has.
local replies, last
-- For what is entangled: the policies, what each key holds by now, how long a window has left, and what is to be written.
local policies, values, lefts, changes
-- Of the group at hand: the first part of its reply, whether all of its steps fit, whether one is not known here; and what is kept
-- of its steps if they do: three places each, so many places.
local first, are_admitted, is_strange, waits, waiting = 2, true, false, nil, 0
-- What a step keeps if it fits, and how: of a state, how long its key lives from now on (ms), or 0 if that stays; a window has the
-- time left of it, and what is added, or below zero how long a new one lives (ms).
local value, change, left
