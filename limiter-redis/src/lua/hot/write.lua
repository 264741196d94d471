-- Writes a key's value; `refused` is the error if it cannot be.
local name = keys[key]
if change == 0 then
  refused = call('SET', name, value, 'KEEPTTL').err
elseif change < 0 then
  refused = call('SET', name, value, 'PX', -change).err
elseif left then
  local count = call('INCRBY', name, change == 1 and '1' or change)
  refused = count ~= value and count.err
else
  -- Text costs less than a number.
  refused = call('SET', name, value, 'PX', change == span and floor or change).err
end
