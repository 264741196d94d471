-- Time and expiry: the only file that reads the clock, and that reads or sets when a key expires.
-- Tests replace it by a twin whose time they set.
local clock = {
  -- Microseconds since the Unix epoch.
  now = function()
    local time = call('TIME')
    return time[1] * 1000000 + time[2]
  end,
  -- Of a key that may have expired: the reply of a command, false or nothing as it says that there is no such key; nil if the
  -- key is of another type.
  read = read,
  -- Milliseconds until the key expires; -1 if it never does.
  ttl = function(key)
    return call('PTTL', key)
  end,
  -- Value and expiry in one command: there is no moment without one.
  put = function(key, value, ttl)
    call('SET', key, value, 'PX', ttl)
  end,
  -- A new value under the expiry that the key has.
  keep = function(key, value)
    call('SET', key, value, 'KEEPTTL')
  end,
  -- Another expiry of a key whose value is written in part.
  expire = function(key, ttl)
    call('PEXPIRE', key, ttl)
  end,
  drop = function(key)
    call('DEL', key)
  end,
}
