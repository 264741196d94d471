-- Sliding window counter. Mirrors sliding_window.rs.
-- Quota: capacity, window (us), unit (us), length (units). State: window, start (us), previous, current.
-- Its value has one more number: until when the key lives (ms), for the hot script.
local counter_kind = { head = 's\1', name = 2 }

local WINDOWS = '>I7I7I7I7I7'

function counter_kind.parse(raw)
  if #raw ~= 37 then
    return nil
  end
  local window, start, previous, current, kept = struct.unpack(WINDOWS, raw, 3)
  if window == 0 or not are_exact(window, start, previous, current, kept) then
    return nil
  end
  return { window = window, start = start, previous = previous, current = current }
end

local function windows_over_at(state)
  return state.start + (state.current > 0 and 2 or 1) * state.window
end

function counter_kind.over(state)
  return now >= windows_over_at(state)
end

function counter_kind.save(key, state, floor)
  local ttl = time_to_live(floor, windows_over_at(state))
  local value = counter_kind.head
    .. struct.pack(
      WINDOWS,
      state.window,
      state.start,
      state.previous,
      state.current,
      kept_until(ttl)
    )
  call('SET', key, value, 'PX', ttl)
end

-- Where a window of another length begins so that the counts end no earlier under it than they would have, `windows`
-- whole windows after the stored start.
local function moved_to(stored, window, windows, previous, current)
  local start = stored.start + windows * stored.window
  -- A count ends `last` windows after the start.
  local function begins(count, last)
    return count > 0 and (div_ceil(start + last * stored.window, window) - last) * window or 0
  end
  return math.max(begins(previous, 1), begins(current, 2))
end

-- The first moment in the window from `start` at which `previous` weighs at most `allowed`.
local function lightens_at(quota, start, previous, allowed)
  local left = math.floor(((allowed + 1) * quota.length - 1) / previous)
  return start + (quota.length - left) * quota.unit
end

local function used(view, quota, now)
  local elapsed = math.floor(math.max(0, now - view.start) / quota.unit)
  return math.floor(view.previous * (quota.length - elapsed) / quota.length) + view.current
end

return {
  kind = counter_kind,
  quota = function(limit, window, unit)
    if math.min(limit, window, unit) < 1 or window % unit ~= 0 then
      return nil
    end
    local length = window / unit
    -- The largest count whose product with the length is exact.
    local most = math.min(math.floor(MAX_INTEGER / length), LIMIT_BOUND)
    return { capacity = limit, window = window, unit = unit, length = length, most = most }
  end,
  view = function(stored, quota, now)
    local window = quota.window
    local start = now - now % window
    if not stored then
      return { window = window, start = start, previous = 0, current = 0 }
    end
    -- A clock that stepped back stays in the stored window. (After two, the state is over.)
    local windows = math.floor(math.max(0, now - stored.start) / stored.window)
    local previous, current = stored.previous, stored.current
    if windows == 1 then
      previous, current = current, 0
    end
    if stored.window == window then
      start = math.max(start, stored.start)
    else
      start = math.max(start, moved_to(stored, window, windows, previous, current))
    end
    return {
      window = window,
      start = start,
      previous = math.min(previous, quota.most),
      current = math.min(current, quota.most),
    }
  end,
  mends = function(stored, view)
    return view.window ~= stored.window and view.previous + view.current > 0
  end,
  debitable = function(view, quota, now, life)
    local free = quota.capacity - used(view, quota, now)
    return math.max(0, free), math.max(0, math.min(life, view.start + view.window - now))
  end,
  used = used,
  wait = function(_, view, quota, now, cost)
    if used(view, quota, now) + cost <= quota.capacity then
      return 0
    end
    local at
    if view.current + cost <= quota.capacity then
      local allowed = quota.capacity - view.current - cost
      at = lightens_at(quota, view.start, view.previous, allowed)
    else
      at = lightens_at(quota, view.start + quota.window, view.current, quota.capacity - cost)
    end
    return at - now
  end,
  write = function(_, view, quota, now, change)
    local does, amount = change.does, change.amount
    if does == 'charge' or does == 'debit' then
      view.current = view.current + amount
      return view, amount, now, view.start
    elseif does == 'keep' then
      return view, 0
    end
    local count
    if change.number >= view.start then
      count = 'current'
    elseif change.number >= view.start - view.window then
      count = 'previous'
    else
      return view, 0
    end
    if does == 'give_back' then
      amount = math.min(amount, view[count])
      view[count] = view[count] - amount
    else
      amount = math.min(amount, quota.most - view[count])
      view[count] = view[count] + amount
    end
    return view, amount
  end,
  counts_until = function(quota, _, number)
    return moment(number + 2 * quota.window)
  end,
}
