-- The end of a step, and perhaps of its group.
if takes and kind >= ENTANGLED then
  waits[waiting + 1], waits[waiting + 2], waits[waiting + 3] = key, value, change
  waiting = waiting + 3
end
reply = reply and reply .. found or found
if more == 0 then
  if is_strange then
    reply = '?'
  elseif not are_admitted then
    reply = '!' .. reply
  end
  if at >= ends and not replies then
    return pack('>I7', now) .. reply
  end
  replies, last = replies or { pack('>I7', now) }, (last or 1) + 1
  replies[last] = reply
  if kind >= ENTANGLED then
    promises[#promises + 1] = last
  end
  if waiting > 0 and are_admitted and not is_strange then
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
  reply, are_admitted, is_strange, waiting = nil, true, false, 0
end
more, kind, key, policy, cost, at = unpack(HOT_STEP, input, at)
