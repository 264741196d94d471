-- Numbers that scripts accept: integers in 0..2^53-1, which a double holds exactly.
local MAX_INTEGER = 9007199254740991
-- As in algorithm/mod.rs: above limits and capacities, and the most that a count may become.
local LIMIT_BOUND = 2251799813685248 -- 2^51
local COUNT_BOUND = 4503599627370496 -- 2^52

-- ceil(a / b), exact for integers below 2^53.
local function div_ceil(a, b)
  return math.floor((a + b - 1) / b)
end

-- A moment, or the largest one. The sum of two exact integers need not be exact, but it is too large then.
local function moment(micros)
  return math.min(micros, MAX_INTEGER)
end

-- The expiry of a state that is fresh from `fresh_at` on, in ms.
local function time_to_live(floor, fresh_at, now)
  return math.max(floor, div_ceil(fresh_at - now, 1000), 1)
end
