-- KEYS: value, index. ARGV: by, time to live (ms), the key's name in the index.
-- The sum goes back as text: a Lua number would round it above 2^53.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('INCRBY', KEYS[1], ARGV[1])
else
  index(KEYS[2], ARGV[3], tonumber(ARGV[2]))
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('GET', KEYS[1])
