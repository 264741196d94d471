-- Limit a, window b (us), unit c (us), length e (units). See sliding_window.lua.
local COUNTER_HEAD, HOT_COUNTER = 29441, '>I2I7I7I7I7I7' -- 's\1'
local is_known = not raw
start = now - now % b
previous, current = 0, 0
if raw and #raw == 37 then
  local head, window, from, earlier, latest, lives = unpack(HOT_COUNTER, raw)
  if
    head == COUNTER_HEAD
    and window == b
    and earlier <= most
    and latest <= most
    and lives <= MAX_INTEGER
  then
    local windows = (start - from) / b
    is_known, kept = windows >= 0 and windows % 1 == 0, lives
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
  free_at = start + 2 * b
end
