-- Sliding window counter. Mirrors sliding_window.rs.
-- Quota: capacity, window (us), unit (us), length (units). State: window, start (us), previous, current.
local sliding_window = {}

local LIMIT_BOUND = 2251799813685248 -- 2^51

function sliding_window.quota(limit, window, unit)
  if math.min(limit, window, unit) < 1 or window % unit ~= 0 then
    return nil
  end
  return { capacity = limit, window = window, unit = unit, length = window / unit }
end

function sliding_window.parse(raw)
  local window, start, previous, current = string.match(raw, '^s:(%d+):(%d+):(%d+):(%d+)$')
  window, start = integer(window), integer(start)
  previous, current = integer(previous), integer(current)
  if not (window and start and previous and current) or window == 0 then
    return nil
  end
  return { window = window, start = start, previous = previous, current = current }
end

function sliding_window.settle(state, quota, now)
  local window = quota.window
  local start = now - now % window
  local fresh = { window = window, start = start, previous = 0, current = 0 }
  if not state then
    return fresh
  end
  -- A clock that stepped back stays in the stored window.
  local windows = math.floor(math.max(0, now - state.start) / state.window)
  if windows > 1 then
    return fresh
  end
  local previous, current = state.previous, state.current
  if windows == 1 then
    previous, current = current, 0
  end
  if state.window == window then
    start = math.max(start, state.start)
  end
  local most = math.min(math.floor(MAX_INTEGER / quota.length), LIMIT_BOUND)
  previous, current = math.min(previous, most), math.min(current, most)
  return {
    window = window,
    start = start,
    previous = previous,
    current = current,
    mended = window ~= state.window and previous + current > 0,
  }
end

function sliding_window.used(state, quota, now)
  local elapsed = math.floor(math.max(0, now - state.start) / quota.unit)
  return math.floor(state.previous * (quota.length - elapsed) / quota.length) + state.current
end

-- The first moment in the window from `start` at which `previous` weighs at most `allowed`.
local function lightens_at(quota, start, previous, allowed)
  local left = math.floor(((allowed + 1) * quota.length - 1) / previous)
  return start + (quota.length - left) * quota.unit
end

function sliding_window.wait(state, quota, now, cost)
  if sliding_window.used(state, quota, now) + cost <= quota.capacity then
    return 0
  end
  local at
  if state.current + cost <= quota.capacity then
    local allowed = quota.capacity - state.current - cost
    at = lightens_at(quota, state.start, state.previous, allowed)
  else
    at = lightens_at(quota, state.start + quota.window, state.current, quota.capacity - cost)
  end
  return at - now
end

function sliding_window.charge(state, _, cost)
  return {
    window = state.window,
    start = state.start,
    previous = state.previous,
    current = state.current + cost,
  }
end

function sliding_window.save(key, state, _, now, floor)
  local text = string.format(
    's:%.0f:%.0f:%.0f:%.0f', state.window, state.start, state.previous, state.current
  )
  local windows = state.current > 0 and 2 or 1
  local over = state.start + windows * state.window - now
  clock.put(key, text, math.max(floor, div_ceil(over, 1000)))
end
