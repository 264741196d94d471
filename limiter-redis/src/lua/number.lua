-- Arithmetic of integers in 0..2^53-1; times are microseconds since the Unix epoch.

-- The time of the call.
local now

-- ceil(a / b), exact for integers below 2^53.
local function div_ceil(a, b)
  return math.floor((a + b - 1) / b)
end

-- A moment, or the largest one. The sum of two exact integers need not be exact, but it is too large then.
local function moment(micros)
  return math.min(micros, MAX_INTEGER)
end

-- The time to live (ms) of a state that is fresh from `fresh_at` on.
local function time_to_live(floor, fresh_at)
  return math.max(floor, div_ceil(fresh_at - now, 1000), 1)
end

-- Until when a key lives at least (ms) that is given so long (ms): a server may count from a moment before this time.
local function kept_until(ttl)
  return moment(math.floor(now / 1000) + ttl - 1)
end

-- Whether all of them are exact.
local function are_exact(...)
  return math.max(...) <= MAX_INTEGER
end
