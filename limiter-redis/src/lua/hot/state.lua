-- The value of a bucket or a counter; false for none.
local raw
left = nil
if kind >= SHARED then
  raw = values[key]
  if lefts[key] then
    -- An earlier group found a window there: no value of a state.
    raw = ''
  end
end
if raw == nil then
  raw = call('GET', keys[key])
  if kind >= SHARED then
    values[key] = raw
  end
end
found = raw or '-'
-- A bucket's numbers, and a counter's; from when on they say nothing (us), and until when the key lives (ms).
local debt, boundary, since
local previous, current, start
local free_at, kept = 0, 0
