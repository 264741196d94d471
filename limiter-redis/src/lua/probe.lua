-- Uses every command that clock.lua does, on a key of its own, so that a missing right shows when a
-- connection is made and not in the middle of a charge.
return finish(function()
  clock.now()
  clock.put(KEYS[1], 1, 1000)
  clock.keep(KEYS[1], 2)
  clock.ttl(KEYS[1])
  local value = clock.get(KEYS[1])
  clock.drop(KEYS[1])
  return value
end)
