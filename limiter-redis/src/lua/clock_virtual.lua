-- For tests: Redis's time is what a key holds, and expiry is kept beside the counters, because Redis's own clock cannot be
-- moved. An expired counter is not removed: if the clock steps back it counts again, as in memory. (Redis removes it at some
-- time of its own.)

-- In a cluster a script reaches the keys of its own node only, so there the time stands under several
-- names, which are spread over the nodes; any that this node has will do.
local now_key = 'ratelimit:%virtual:now'
local expiry_key = 'ratelimit:%virtual:expiry'
for _, tag in ipairs({ '', '{a}', '{b}', '{c}' }) do
  local time, expiry = 'ratelimit:%virtual:now' .. tag, 'ratelimit:%virtual:expiry' .. tag
  if type(redis.pcall('GET', time)) ~= 'table' and type(redis.pcall('HGET', expiry, '')) ~= 'table' then
    now_key, expiry_key = time, expiry
    break
  end
end

local call_server, read_server = call, read

local function virtual_now()
  return tonumber(call_server('GET', now_key))
end

-- How long a key lives by that time (ms); nil if it never expires.
local function left_of(key)
  local expires = tonumber(call_server('HGET', expiry_key, key))
  return expires and expires - math.floor(virtual_now() / 1000)
end

local function expire(key, ttl)
  call_server('HSET', expiry_key, key, math.floor(virtual_now() / 1000) + ttl)
end

-- What the commands that know the time do by that time.
local commands = {
  TIME = function()
    local time = virtual_now()
    return { math.floor(time / 1000000), time % 1000000 }
  end,
  PTTL = function(key)
    return left_of(key) or -1
  end,
  SET = function(key, value, how, ttl)
    if how ~= 'PX' then
      return call_server('SET', key, value, how)
    end
    call_server('SET', key, value, 'PX', 3600000)
    expire(key, ttl)
  end,
  PEXPIRE = function(key, ttl)
    call_server('PEXPIRE', key, 3600000)
    expire(key, ttl)
  end,
  DEL = function(key)
    call_server('DEL', key)
    call_server('HDEL', expiry_key, key)
  end,
}

call = function(command, ...)
  local by_time = commands[command]
  if by_time then
    return by_time(...)
  end
  return call_server(command, ...)
end

read = function(command, key, ...)
  local left = left_of(key)
  return (not left or left >= 0) and read_server(command, key, ...)
end
