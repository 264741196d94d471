-- The end of a step, and perhaps of its group.
if more == 0 and at >= ends and not replies then
  -- There is no other.
  local reply = is_strange and '?' or are_admitted and found or '!' .. found
  return pack('>I7', now) .. reply
end
replies, last = replies or { pack('>I7', now) }, (last or 1) + 1
replies[last] = found
if takes and kind >= ENTANGLED then
  waits[waiting + 1], waits[waiting + 2], waits[waiting + 3] = key, value, change
  waiting = waiting + 3
end
if more == 0 then
  if is_strange then
    replies[first] = '?'
    for index = first + 1, last do
      replies[index] = ''
    end
  elseif not are_admitted then
    replies[first] = '!' .. replies[first]
  else
    for index = 1, waiting, 3 do
      key, change = waits[index], waits[index + 2]
      values[key] = waits[index + 1]
      -- What an earlier group changes of the key's life stays.
      if change ~= 0 or not changes[key] then
        changes[key] = change
      end
      if change < 0 then
        lefts[key] = -change
      end
    end
  end
  if at >= ends then
    break
  end
  first, are_admitted, is_strange, waiting = last + 1, true, false, 0
end
more, kind, key, policy, cost, at = unpack(HOT_STEP, input, at)
