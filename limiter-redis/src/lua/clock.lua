-- Time and expiry: the only file that reads the clock and writes counters.
-- Tests replace it by a twin whose time they set.
local clock = {}

-- Microseconds since the Unix epoch.
function clock.now()
  local time = call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

clock.get = read

-- Milliseconds until the key expires; -1 if it never does.
function clock.ttl(key)
  return call('PTTL', key)
end

-- Value and expiry in one command: there is no moment without one.
function clock.put(key, value, ttl)
  call('SET', key, value, 'PX', ttl)
end

-- A new value under the expiry that the key has.
function clock.keep(key, value)
  call('SET', key, value, 'KEEPTTL')
end

function clock.drop(key)
  call('DEL', key)
end
