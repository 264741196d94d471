-- Limit a, window b (us), unit c (us), length e (units). See sliding_window.lua.
local COUNTER_HEAD, HOT_COUNTER = 29441, '>I2I7I7I7I7' -- 's\1'
local start = now - now % b
local previous, current, is_known = 0, 0, not raw
if raw and #raw == 30 then
  local head, window, from, earlier, latest = unpack(HOT_COUNTER, raw)
  if head == COUNTER_HEAD and window == b and earlier <= most and latest <= most then
    local windows = (start - from) / b
    is_known = windows >= 0 and windows % 1 == 0
    if windows == 0 then
      previous, current = earlier, latest
    elseif windows == 1 then
      previous = latest
    end
  end
end
if is_known then
  local elapsed = (now - start) / c
  local weight = previous * (e - (elapsed - elapsed % 1))
  current = current + cost
  fits = (weight - weight % e) / e + current <= a or cost == 0
  if fits then
    value = pack(HOT_COUNTER, COUNTER_HEAD, b, start, previous, current)
    change = start + 2 * b - now
  end
end
