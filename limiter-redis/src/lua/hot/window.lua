-- Limit a, length b (ms; false for a month). See fixed_window.lua and calendar_window.lua.
local count, text
left, change = nil, cost
if kind >= SHARED then
  count, left = values[key], lefts[key]
end
if left then
  local before = changes[key] or 0
  change = before < 0 and before or before + cost
elseif not count then
  local raw = call('GET', keys[key])
  if not raw then
    count, left = 0, -1
  elseif #raw < 16 then
    count, text = tonumber(raw), raw
    if count and count >= 0 then
      left = call('PTTL', keys[key])
      if type(left) ~= 'number' or left < 0 then
        -- A counter that never expires gets an end elsewhere.
        left = nil
      end
    end
  end
end
if
  left
  and text
  and (kind > 0 or cost == 0 or count + cost > a)
  and text ~= '0'
  and not string.find(text, '^[1-9]%d*$')
then
  -- No count, or one with zeros in front: INCRBY, which looks at what it is to change, refuses that.
  left = nil
end
if left == -1 then
  -- None yet.
  if algorithm == FIXED_WINDOW then
    change = 1 - b
  elseif b then
    change = (now - now % 1000) / 1000 % b + 1 - b
    change = change == 0 and -1 or change
  else
    left = nil
  end
end
if left then
  if kind >= ENTANGLED then
    values[key], lefts[key] = count, left
  end
  found = pack('>BI7I7', 119, count, left + 1)
  value = count + cost
  fits = value <= a or cost == 0
end
