-- Fixed window: a plain count whose key's expiry is the window's end. Mirrors fixed_window.rs.
-- Quota: capacity, longest (the expiry, in ms, with which a window is opened: a key lives through the
-- millisecond of its expiry, so one less than the window). State: count, left (ms), opened, mended.
local fixed_window = {}

function fixed_window.quota(limit, window)
  if limit < 1 or window < 2 then
    return nil
  end
  return { capacity = limit, longest = window - 1 }
end

function fixed_window.parse(raw, key)
  local count = integer(raw)
  return count and { count = count, left = clock.ttl(key) }
end

function fixed_window.settle(state, quota)
  if not state then
    return { count = 0, left = quota.longest, opened = true }
  end
  local left = state.left
  -- A counter that never expires, or one that a longer window opened.
  local mended = left < 0 or left > quota.longest
  if mended then
    left = quota.longest
  end
  return {
    count = state.count,
    left = left,
    opened = state.opened,
    mended = mended or state.mended,
  }
end

function fixed_window.used(state)
  return state.count
end

-- The millisecond of the expiry belongs to the window.
function fixed_window.wait(state, quota, _, cost)
  if state.count + cost <= quota.capacity then
    return 0
  end
  return (state.left + 1) * 1000
end

function fixed_window.charge(state, _, cost)
  return {
    count = state.count + cost,
    left = state.left,
    opened = state.opened,
    mended = state.mended,
  }
end

function fixed_window.save(key, state)
  if state.opened or state.mended then
    clock.put(key, state.count, state.left)
  else
    clock.keep(key, state.count)
  end
end
