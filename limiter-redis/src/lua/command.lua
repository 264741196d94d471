-- How scripts call Redis.

-- The error that ends the script, as Redis gave it. Raised errors lose their code on the way: 6.2 wraps
-- them in ERR and puts the place in front, and the pcall of 7.0 turns them into text.
local failure

local function fail(reply)
  failure = { err = string.gsub(reply.err, '^@user_script: ?%d+: %-?', '') }
  error(failure.err, 0)
end

local function call(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    fail(reply)
  end
  return reply
end

-- The first command on a key that may be of another type: its reply, or nil if it is.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then
    return reply
  elseif string.find(reply.err, 'WRONGTYPE', 1, true) then
    return nil
  end
  fail(reply)
end

-- What a function returns; or nil, and the error that ended it, which ends nothing else.
local function attempt(run, ...)
  local ok, result = pcall(run, ...)
  if ok then
    return result
  end
  local ended = failure and failure.err or result
  failure = nil
  return nil, ended
end

-- The end of every script: its reply, or the error that ended it.
local function finish(run)
  local ok, reply = pcall(run)
  if ok then
    return reply
  end
  return failure or error(reply, 0)
end
