-- KEYS: lists. ARGV: the most names of a list, its time to live (ms), and for each list how many names, and each name and its count.
return finish(function()
  local most, ttl, at = tonumber(ARGV[1]), ARGV[2], 3
  for list = 1, #KEYS do
    local names = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, names do
      local name, count = ARGV[at], tonumber(ARGV[at + 1])
      at = at + 2
      local known = call('ZSCORE', KEYS[list], name)
      if not known and call('ZCARD', KEYS[list]) >= most then
        -- The one that counts least makes room, and leaves its count.
        local least = call('ZRANGE', KEYS[list], 0, 0, 'WITHSCORES')
        call('ZREM', KEYS[list], least[1])
        known = least[2]
      end
      call('ZADD', KEYS[list], tonumber(known or 0) + count, name)
    end
    call('PEXPIRE', KEYS[list], ttl)
  end
  return 1
end)
