-- Writes a key's value; `refused` is the error if it cannot be.
local name = keys[key]
if change < 0 then
  refused = call('SET', name, value, 'PX', -change).err
elseif left then
  local count = call('INCRBY', name, change == 1 and '1' or change)
  refused = count ~= value and (type(count) == 'table' and count.err or 'ERR another count')
elseif change <= floor * 1000 then
  refused = call('SET', name, value, 'PX', floor).err
else
  change = change + 999
  refused = call('SET', name, value, 'PX', (change - change % 1000) / 1000).err
end
