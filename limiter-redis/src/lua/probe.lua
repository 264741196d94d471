-- Uses every command of the limit scripts, on a key of its own, so that a missing right shows when a
-- connection is made and not in the middle of a charge.
return finish(function()
  local key = KEYS[1]
  call('TIME')
  call('SET', key, 1, 'PX', 1000)
  call('SET', key, 2, 'KEEPTTL')
  call('PTTL', key)
  call('PEXPIRE', key, 1000)
  local value = read('GET', key)
  call('SETRANGE', key, 0, '3')
  call('GETRANGE', key, 0, 0)
  call('STRLEN', key)
  call('DEL', key)
  call('ZADD', key, 1, 'a')
  call('PEXPIRE', key, 1000)
  call('ZMSCORE', key, 'a')
  call('ZCOUNT', key, 1, 1)
  call('ZRANGE', key, 0, 0)
  call('ZREM', key, 'b')
  call('ZREMRANGEBYSCORE', key, 2, 2)
  call('DEL', key)
  return value
end)
