-- Uses every command of the limit scripts, on a key of its own, so that a missing right shows when a
-- connection is made and not in the middle of a charge.
return finish(function()
  local key = KEYS[1]
  clock.now()
  clock.put(key, 1, 1000)
  clock.keep(key, 2)
  clock.ttl(key)
  local value = clock.read('GET', key)
  call('SETRANGE', key, 0, '3')
  call('GETRANGE', key, 0, 0)
  call('STRLEN', key)
  clock.drop(key)
  call('ZADD', key, 1, 'a')
  clock.expire(key, 1000)
  call('ZSCORE', key, 'a')
  call('ZMSCORE', key, 'a')
  call('ZCOUNT', key, 1, 1)
  call('ZRANGE', key, 0, 0)
  call('ZREM', key, 'b')
  call('ZREMRANGEBYSCORE', key, 2, 2)
  clock.drop(key)
  return value
end)
