-- For tests: clock_virtual.lua, for the hot script. In the function, `redis` is still the server's.
local redis = {
  pcall = function(command, key, ...)
    if command == 'INCRBY' then
      return redis.pcall(command, key, ...)
    elseif command ~= 'GET' then
      local reply = call(command, key, ...)
      return reply == nil and { ok = 'OK' } or reply
    end
    local value = read('GET', key)
    return value == nil and { err = 'WRONGTYPE' } or value
  end,
}
