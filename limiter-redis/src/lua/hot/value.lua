-- The new value, and how long it is kept. Most writes leave the key's expiry alone, which costs the server as much as the value
-- does: if the key lives until the value says nothing, and for 7/8 of the floor, and not longer than it would be given.
if fits then
  local millis = (now - now % 1000) / 1000
  if
    kept * 1000 >= free_at
    and kept - millis >= span - span / 8
    and (kept - millis <= span or kept * 1000 <= free_at + 2000)
  then
    change = 0
  else
    change = span
    if free_at - now > span * 1000 then
      change = free_at - now + 1999
      change = (change - change % 1000) / 1000
    end
    -- A server may count from a moment before this time.
    kept = millis + change - 1
  end
  if algorithm == TOKEN_BUCKET then
    local past = boundary - since
    if rate > 0 and debt < SHORT_DEBT and past < SHORT_NUMBER then
      local block = (kept - kept % KEPT_MILLIS) / KEPT_MILLIS
      -- It is a lower bound, and has to be within the blocks from the state's on.
      local furthest = (boundary - boundary % KEPT_BLOCK) / KEPT_BLOCK + KEPT_BLOCKS - 1
      block = (block < furthest and block or furthest) % KEPT_BLOCKS
      value = pack(HOT_SHORT_BUCKET, BUCKET_HEAD, boundary, debt, c, past, rate, block)
    else
      value = pack(HOT_BUCKET, BUCKET_HEAD, c, debt, boundary, free_at, since, kept)
    end
  else
    value = pack(HOT_COUNTER, COUNTER_HEAD, b, start, previous, current, kept)
  end
end
