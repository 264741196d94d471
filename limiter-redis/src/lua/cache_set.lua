-- KEYS: value, index. ARGV: value, time to live (ms), the key's name in the index.
-- The index first: an entry there without a value does no harm, a value without an entry outlives a clear.
index(KEYS[2], ARGV[3], tonumber(ARGV[2]))
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
