-- Numbers that scripts accept: decimal integers in 0..2^53-1, which a double holds exactly.
local MAX_INTEGER = 9007199254740991
-- As in algorithm/mod.rs: above limits and capacities, and the most that a count may become.
local LIMIT_BOUND = 2251799813685248 -- 2^51
local COUNT_BOUND = 4503599627370496 -- 2^52

-- The number, or nil. `nan`, `0x10`, `1e3`, `-5` and ` 7` are none.
local function integer(text)
  if type(text) ~= 'string' or #text > 16 or not string.find(text, '^%d+$') then
    return nil
  end
  local number = tonumber(text)
  if number > MAX_INTEGER then
    return nil
  end
  return number
end

-- The 16 bytes of a digest, or nil.
local function digest(text)
  return type(text) == 'string' and #text == 16 and text or nil
end

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
