if kind >= ENTANGLED and not values then
  values, lefts, changes, waits, policies = {}, {}, {}, {}, {}
  replies, last = replies or { pack('>I7', now) }, last or 1
end

-- The numbers of another policy than the last step's, checked. The groups of some take turns at several.
if policy ~= place then
  place = policy
  local known = policies and policies[place]
  if known then
    algorithm, a, b, c = known[1], known[2], known[3], known[4]
    d, e, most, rate = known[5], known[6], known[7], known[8]
  else
    algorithm, a, b, c, d = unpack(HOT_POLICY, input, place)
    if a > MAX_INTEGER or b > MAX_INTEGER or c > MAX_INTEGER or d > MAX_INTEGER then
      algorithm = 0
    elseif algorithm == TOKEN_BUCKET and a * b * c * d > 0 then
      -- What it holds, and the largest debt: see token_bucket.lua.
      e = a * c
      most = b * ((LONGEST - LONGEST % d) / d - 1)
      if most > MAX_INTEGER - e - b then
        most = MAX_INTEGER - e - b
      end
      if most < 2 * e then
        most = 2 * e
      end
      -- Gain and unit, as a short value has them; -1 if it has no room for them.
      rate = -1
      if b < GAINS and c < SHORT_NUMBER then
        rate = d == 1 and b or d == 1000 and b + GAINS or d == 1000000 and b + 2 * GAINS or -1
      end
    elseif algorithm == SLIDING_WINDOW and a * b * c > 0 and b % c == 0 then
      -- The length in units, and the largest count: see sliding_window.lua.
      e = b / c
      most = MAX_INTEGER / e
      if most > LIMIT_BOUND then
        most = LIMIT_BOUND
      end
    elseif algorithm == CALENDAR_WINDOW and a > 0 then
      -- A month's length is not known here.
      b = b == 1 and 60000 or b == 2 and 3600000 or b == 3 and 86400000
    elseif algorithm ~= FIXED_WINDOW or a < 1 or b < 2 then
      algorithm = 0
    end
    if policies then
      policies[place] = { algorithm, a, b, c, d, e, most, rate }
    end
  end
end

-- What is there, as it is replied; and whether the step fits, nil if it is not known here.
local found, fits
