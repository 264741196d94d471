-- KEYS: value, index. ARGV: value, time to live (ms), the key's name in the index.
return finish(function()
  -- The index first: a name there without a value does no harm, a value without a name outlives a clear.
  index(KEYS[2], ARGV[3], tonumber(ARGV[2]))
  return call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end)
