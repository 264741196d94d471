-- How scripts call Redis.

-- Redis 6.2 wraps an error that a script raises in ERR; a table keeps the original.
local function call(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    error(reply, 0)
  end
  return reply
end

-- The value of a string key; false if there is none; nil if the key is of another type.
local function read(key)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'table' then
    return value
  end
  if string.find(value.err, 'WRONGTYPE', 1, true) then
    return nil
  end
  error(value, 0)
end

-- The end of every script: its reply, or the error that Redis gave.
local function finish(run)
  local ok, reply = pcall(run)
  if ok or type(reply) == 'table' then
    return reply
  end
  error(reply, 0)
end
