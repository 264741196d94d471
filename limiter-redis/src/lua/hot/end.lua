if refused and has_written then
  -- A server that refuses all writes refuses the first one; this is a right that was taken away.
  return { err = 'HALFWAY ' .. refused }
elseif refused then
  -- Of what is entangled nothing was done; the rest was written, step by step.
  at, first, last = 1, 2, 1
  while at < ends do
    more, kind, key, policy, cost, at = unpack(HOT_STEP, input, at)
    last = last + 1
    if more == 0 then
      if kind >= ENTANGLED then
        replies[first] = '?'
        for index = first + 1, last do
          replies[index] = ''
        end
      end
      first = last + 1
    end
  end
  break
end
has_written = true
