-- What is remembered of a reservation, a refund or a released lease, so that a retry is recognised. Mirrors record.rs. A record's
-- own `expires` (us) says how long it counts; the key's expiry only removes it.
-- 44 bytes: cost (at first; the highest three bits are the status), actual (what it was settled to), charged (what stands
-- now), at and number (its mark), expires.
local charge_record = { head = 'r\1', name = 7 }

local RECORD = '>BI6I7I7I7I7I7'
-- Of the first byte; and what the cost's highest byte stands for.
local STATUS_PLACE, HIGH_BYTE = 32, 281474976710656 -- 2^48

function charge_record.parse(raw)
  if #raw ~= 44 then
    return nil
  end
  local first, low, actual, charged, at, number, expires = struct.unpack(RECORD, raw, 3)
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

function charge_record.over(record)
  return record.expires <= now
end

function charge_record.save(key, record)
  local value = charge_record.head
    .. struct.pack(
      RECORD,
      record.status * STATUS_PLACE + math.floor(record.cost / HIGH_BYTE),
      record.cost % HIGH_BYTE,
      record.actual,
      record.charged,
      record.at,
      record.number,
      record.expires
    )
  call('SET', key, value, 'PX', time_to_live(0, record.expires))
end

-- Remembers an id as done with; what is remembered already is not forgotten sooner.
local function bury(step)
  local known = state_in(step.record, RECORDS)
  keep_in(step.record, charge_record, {
    status = CANCELLED,
    cost = 0,
    actual = 0,
    charged = 0,
    at = 0,
    number = 0,
    expires = math.max(step.expires, known and known.expires or 0),
  })
end

-- Nothing, because it was done before, with what stands of it.
local function done(step, record, replay, actual)
  step.does, step.found, step.replay, step.actual = 'done', record, replay, actual
end

return { kind = charge_record, bury = bury, done = done }
