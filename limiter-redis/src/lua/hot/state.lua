-- The value of a bucket or a counter; false for none.
local raw
left = nil
if kind >= ENTANGLED then
  raw = values[key]
  if lefts[key] then
    -- A window's.
    raw = ''
  end
end
if raw == nil then
  raw = call('GET', keys[key])
  if kind >= ENTANGLED then
    values[key] = raw
  end
end
found = raw or '-'
