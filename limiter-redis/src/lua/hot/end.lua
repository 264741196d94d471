if refused and has_written then
  -- A server that refuses all writes refuses the first one; this is a right that was taken away.
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
