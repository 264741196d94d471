if refused and has_written then
  -- No server is known that refuses a later write of a script: see cells.lua.
  return { err = 'HALFWAY ' .. refused }
elseif refused then
  for from, to in pairs(promises) do
    replies[from] = '?'
    for index = from + 1, to do
      replies[index] = ''
    end
  end
  break
end
has_written = true
