-- Capacity a, gain b, token c, unit d, full e. See token_bucket.lua.
local BUCKET_HEAD = 25089 -- 'b\1'
local HOT_SHORT_BUCKET, HOT_BUCKET = '>I2I7I6I5I5BI2', '>I2I7I7I7I7I7I7'
local is_known = not raw
boundary = now - now % d
debt, since = 0, boundary
if raw and #raw == 28 then
  local head, from, owed, token, past, gain_and_unit, block = unpack(HOT_SHORT_BUCKET, raw)
  if
    head == BUCKET_HEAD
    and token == c
    and gain_and_unit == rate
    and owed <= most
    and from <= boundary
    and past <= from
  then
    local units, first = (boundary - from) / d, (from - from % KEPT_BLOCK) / KEPT_BLOCK
    is_known = units % 1 == 0
    kept = (first + (block - first) % KEPT_BLOCKS) * KEPT_MILLIS
    if owed > units * b then
      debt, since = owed - units * b, from - past
    end
  end
elseif raw and #raw == 44 then
  local head, token, owed, from, full_at, was_full, lives = unpack(HOT_BUCKET, raw)
  found = '+' .. raw
  if
    head == BUCKET_HEAD
    and token == c
    and owed <= most
    and from <= boundary
    and was_full <= boundary
    and lives <= MAX_INTEGER
  then
    is_known, kept = true, lives
    if now < full_at then
      local units = (boundary - from) / d
      debt, since = owed - units * b, was_full
      local rest = debt % b
      -- It was written under another quota if it is paid off at another time.
      is_known = units % 1 == 0
        and boundary + ((debt - rest) / b + (rest > 0 and 1 or 0)) * d == full_at
    end
  end
end
if is_known then
  debt = debt + cost * c
  local rest = debt % b
  free_at = boundary + ((debt - rest) / b + (rest > 0 and 1 or 0)) * d
  if free_at <= MAX_INTEGER then
    fits = cost <= a and debt <= e or cost == 0
  end
end
