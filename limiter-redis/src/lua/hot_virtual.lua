-- For tests: clock_virtual.lua, for the short way.
local redis = {
  pcall = function(command, key, ...)
    if command ~= 'GET' then
      local reply = call(command, key, ...)
      return reply == nil and { ok = 'OK' } or reply
    end
    local value = read('GET', key)
    return value == nil and { err = 'WRONGTYPE' } or value
  end,
}
