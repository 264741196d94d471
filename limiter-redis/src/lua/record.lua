-- What is remembered beside a limit's state, so that a retry is recognised. Mirrors record.rs. A record's
-- own `expires` (us) says how long it counts; the key's expiry only removes it.
local HELD, SETTLED, CANCELLED, REFUNDED = 0, 1, 2, 3

local function record_over(record, now)
  return record.expires <= now
end

-- Of a reservation or a refund: status, cost (at first), actual (what it was settled to), charged (what
-- stands now), at and number (its mark), expires.
local charge_record = { over = record_over }

function charge_record.parse(raw)
  local numbers = {}
  for number in string.gmatch(string.sub(raw, 3), '[^:]+') do
    numbers[#numbers + 1] = integer(number)
  end
  local status, cost, actual, charged, at, number, expires = unpack(numbers, 1, 7)
  local text = expires and string.format(
    'r:%.0f:%.0f:%.0f:%.0f:%.0f:%.0f:%.0f', status, cost, actual, charged, at, number, expires
  )
  if text ~= raw or status > REFUNDED then
    return nil
  end
  return {
    status = status,
    cost = cost,
    actual = actual,
    charged = charged,
    at = at,
    number = number,
    expires = expires,
  }
end

function charge_record.save(key, record, now)
  local text = string.format(
    'r:%.0f:%.0f:%.0f:%.0f:%.0f:%.0f:%.0f',
    record.status,
    record.cost,
    record.actual,
    record.charged,
    record.at,
    record.number,
    record.expires
  )
  clock.put(key, text, time_to_live(0, record.expires, now))
end

-- Of a group that was admitted under an operation id: fingerprint, expires, charges (for each step what
-- it charged, and its mark).
local operation_record = { over = record_over }

function operation_record.parse(raw)
  local fingerprint, expires, from = string.match(raw, '^o:(%x+):(%d+);()')
  local record = { fingerprint = digest(fingerprint), expires = integer(expires), charges = {} }
  if not (record.fingerprint and record.expires) then
    return nil
  end
  while from <= #raw do
    local charged, at, number, after = string.match(raw, '^(%d+):(%d+):(%d+);()', from)
    charged, at, number = integer(charged), integer(at), integer(number)
    if not (charged and at and number) then
      return nil
    end
    record.charges[#record.charges + 1] = { charged, at, number }
    from = after
  end
  return record
end

function operation_record.save(key, record, now)
  local parts = { string.format('o:%s:%.0f;', record.fingerprint, record.expires) }
  for index, charge in ipairs(record.charges) do
    parts[index + 1] = string.format('%.0f:%.0f:%.0f;', charge[1], charge[2], charge[3])
  end
  clock.put(key, table.concat(parts), time_to_live(0, record.expires, now))
end
