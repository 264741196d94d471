-- KEYS: index. ARGV: name, expiry, name, expiry, ... Removes the names that were not written again.
return finish(function()
  for i = 1, #ARGV, 2 do
    if call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then
      call('ZREM', KEYS[1], ARGV[i])
    end
  end
  return redis.status_reply('OK')
end)
