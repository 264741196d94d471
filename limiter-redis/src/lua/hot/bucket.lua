-- Capacity a, gain b, token c, unit d, full e. See token_bucket.lua.
local BUCKET_HEAD, HOT_BUCKET = 25089, '>I2I7I7I7I7I7I7' -- 'b\1'
local is_known = not raw
boundary = now - now % d
debt, since = 0, boundary
if raw and #raw == 44 then
  local head, token, owed, from, full_at, was_full, lives = unpack(HOT_BUCKET, raw)
  if
    head == BUCKET_HEAD
    and token == c
    and owed <= most
    and from <= boundary
    and was_full <= now
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
  fits = cost <= a and debt <= e or cost == 0
  local rest = debt % b
  free_at = boundary + ((debt - rest) / b + (rest > 0 and 1 or 0)) * d
end
