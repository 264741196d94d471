-- The twin of clock.lua for tests: the time is what the key NOW holds, and expiry is kept beside the
-- counters, because Redis's own clock cannot be moved. An expired counter is not removed: if the
-- clock steps back it counts again, as in memory. (Redis removes it at some time of its own.)

-- In a cluster a script reaches the keys of its own node only, so there the time stands under several
-- names, which are spread over the nodes; any that this node has will do.
local NOW = 'ratelimit:%virtual:now'
local EXPIRY = 'ratelimit:%virtual:expiry'
for _, tag in ipairs({ '', '{a}', '{b}', '{c}' }) do
  local now, expiry = 'ratelimit:%virtual:now' .. tag, 'ratelimit:%virtual:expiry' .. tag
  if type(redis.pcall('GET', now)) ~= 'table' and type(redis.pcall('HGET', expiry, '')) ~= 'table' then
    NOW, EXPIRY = now, expiry
    break
  end
end

local clock = {
  now = function()
    return tonumber(call('GET', NOW))
  end,
  put = function(key, value)
    call('SET', key, value, 'PX', 3600000)
  end,
  keep = function(key, value)
    call('SET', key, value, 'KEEPTTL')
  end,
  drop = function(key)
    call('DEL', key)
    call('HDEL', EXPIRY, key)
  end,
}

local function millis()
  return math.floor(clock.now() / 1000)
end

function clock.read(command, key, ...)
  local expires = tonumber(call('HGET', EXPIRY, key))
  if expires and millis() > expires then
    return false
  end
  return read(command, key, ...)
end

function clock.ttl(key)
  local expires = tonumber(call('HGET', EXPIRY, key))
  return expires and expires - millis() or -1
end

function clock.expire(key, ttl)
  call('PEXPIRE', key, 3600000)
  call('HSET', EXPIRY, key, millis() + ttl)
end

local put = clock.put
function clock.put(key, value, ttl)
  put(key, value)
  call('HSET', EXPIRY, key, millis() + ttl)
end
