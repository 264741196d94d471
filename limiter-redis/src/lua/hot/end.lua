if refused and has_written then
  -- No server is known that refuses a later write of a script: see cells.lua.
  return { err = 'HALFWAY ' .. refused }
elseif refused then
  for _, promise in ipairs(promises) do
    replies[promise] = '?'
  end
  break
end
has_written = true
