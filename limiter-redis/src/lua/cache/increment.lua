-- KEYS: value, index. ARGV: by, time to live (ms), the key's name in the index.
return finish(function()
  if call('EXISTS', KEYS[1]) == 1 then
    call('INCRBY', KEYS[1], ARGV[1])
  else
    index(KEYS[2], ARGV[3], tonumber(ARGV[2]))
    call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  end
  -- As text: a Lua number would round the sum above 2^53.
  return call('GET', KEYS[1])
end)
