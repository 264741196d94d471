-- What is remembered beside a limit's state, so that a retry is recognised. Mirrors record.rs. A record's
-- own `expires` (us) says how long it counts; the key's expiry only removes it.
local HELD, SETTLED, CANCELLED, REFUNDED = 0, 1, 2, 3

local function record_over(record, now)
  return record.expires <= now
end

-- Of a reservation, a refund or a released lease, 44 bytes: cost (at first; the highest three bits are the status), actual (what
-- it was settled to), charged (what stands now), at and number (its mark), expires.
local charge_record = new_kind('r', 7)
charge_record.over = record_over

local CHARGE_RECORD = '>BI6' .. string.rep('I7', 5)
-- Of the first byte; and what the cost's highest byte stands for.
local STATUS_PLACE, HIGH_BYTE = 32, 2 ^ 48

function charge_record.parse(raw)
  if #raw ~= 44 then
    return nil
  end
  local first, low, actual, charged, at, number, expires = struct.unpack(CHARGE_RECORD, raw, 3)
  local status, cost = math.floor(first / STATUS_PLACE), first % STATUS_PLACE * HIGH_BYTE + low
  if status > REFUNDED or not are_exact(cost, actual, charged, at, number, expires) then
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
  local value = charge_record.head
    .. struct.pack(
      CHARGE_RECORD,
      record.status * STATUS_PLACE + math.floor(record.cost / HIGH_BYTE),
      record.cost % HIGH_BYTE,
      record.actual,
      record.charged,
      record.at,
      record.number,
      record.expires
    )
  clock.put(key, value, time_to_live(0, record.expires, now))
end

-- Of a group that was admitted under an operation id: fingerprint (16 bytes), expires, charges (for each step, in the operation's
-- own order, what it charged, and its mark).
local operation_record = new_kind('o', 8)
operation_record.over = record_over

local OPERATION_HEAD, OPERATION_CHARGE = '>c16I7', numbers(3)
local OPERATION_HEAD_BYTES, OPERATION_CHARGE_BYTES = 25, 21

function operation_record.parse(raw)
  local bytes = #raw - OPERATION_HEAD_BYTES
  if bytes < 0 or bytes % OPERATION_CHARGE_BYTES ~= 0 then
    return nil
  end
  local fingerprint, expires = struct.unpack(OPERATION_HEAD, raw, 3)
  local record = { fingerprint = fingerprint, expires = expires, charges = {} }
  for from = OPERATION_HEAD_BYTES + 1, #raw, OPERATION_CHARGE_BYTES do
    local charged, at, number = struct.unpack(OPERATION_CHARGE, raw, from)
    if not are_exact(expires, charged, at, number) then
      return nil
    end
    record.charges[#record.charges + 1] = { charged, at, number }
  end
  return record
end

function operation_record.save(key, record, now)
  local parts = {
    operation_record.head,
    struct.pack(OPERATION_HEAD, record.fingerprint, record.expires),
  }
  for _, charge in ipairs(record.charges) do
    parts[#parts + 1] = struct.pack(OPERATION_CHARGE, charge[1], charge[2], charge[3])
  end
  clock.put(key, table.concat(parts), time_to_live(0, record.expires, now))
end
