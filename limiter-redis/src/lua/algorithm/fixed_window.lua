-- Fixed window: a plain count whose key's expiry is the window's end. Mirrors fixed_window.rs.
-- Quota: capacity, window (ms), tolerance (ms). State and view: count, expires (the window's last millisecond), kept (the expiry
-- that the key has already).
local window_kind = { name = 1 }

function window_kind.parse(raw, key)
  if not string.find(raw, '^%d+$') then
    return nil
  end
  -- More than can be counted is all of a limit, and not nothing.
  local count = #raw <= 16 and tonumber(raw) or COUNT_BOUND
  local left = call('PTTL', key)
  -- A counter that never expires ends with a window that is opened now.
  local expires = left < 0 and MAX_INTEGER or math.floor(now / 1000) + left
  return { count = count <= MAX_INTEGER and count or COUNT_BOUND, expires = expires, kept = expires }
end

function window_kind.over(state)
  return math.floor(now / 1000) > state.expires
end

function window_kind.save(key, state)
  if state.expires == state.kept then
    call('SET', key, state.count, 'KEEPTTL')
  else
    call('SET', key, state.count, 'PX', state.expires - math.floor(now / 1000))
  end
end

-- The window that is open, which ends when it was opened for; or one that is opened now and ends with `expires`.
local function window_or(stored, expires)
  if not stored then
    return { count = 0, expires = expires, kept = nil }
  elseif stored.expires == MAX_INTEGER then
    return { count = stored.count, expires = expires, kept = nil }
  end
  return { count = stored.count, expires = stored.expires, kept = stored.kept }
end

local fixed_window = {
  kind = window_kind,
  quota = function(limit, window)
    if limit < 1 or window < 2 then
      return nil
    end
    return { capacity = limit, window = window, tolerance = math.floor((window - 1) / 2) }
  end,
  view = function(stored, quota, now)
    return window_or(stored, math.floor(now / 1000) + quota.window - 1)
  end,
  -- A counter without an expiry gets one.
  mends = function(stored, view)
    return view.expires ~= stored.expires
  end,
  -- What is left of a limit, until the window ends.
  debitable = function(view, quota, now, life)
    local left = math.max(0, (view.expires + 1) * 1000 - now)
    return math.max(0, quota.capacity - view.count), math.min(life, left)
  end,
  used = function(view)
    return view.count
  end,
  -- The millisecond of the expiry belongs to the window.
  wait = function(_, view, quota, now, cost)
    if view.count + cost <= quota.capacity then
      return 0
    end
    return (view.expires + 1 - math.floor(now / 1000)) * 1000
  end,
  write = function(_, view, quota, now, change)
    local does, amount = change.does, 0
    if does == 'charge' or does == 'debit' then
      view.count = view.count + change.amount
      return view, change.amount, now, view.expires
    elseif does ~= 'keep' and math.abs(change.number - view.expires) <= quota.tolerance then
      if does == 'give_back' then
        amount = math.min(change.amount, view.count)
        view.count = view.count - amount
      elseif does == 'overrun' then
        amount = math.min(change.amount, math.max(0, COUNT_BOUND - view.count))
        view.count = view.count + amount
      end
    end
    return view, amount
  end,
  counts_until = function(_, _, number)
    return moment((number + 1) * 1000)
  end,
}
