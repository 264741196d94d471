-- What is remembered of a group that was admitted under an operation id, and how the group is answered again.
-- fingerprint (16 bytes), expires, charges (for each step, in the operation's own order, what it charged, and its mark).
local operation_record = { head = 'o\1', name = 8 }

local OPERATION, OPERATION_BYTES = '>c16I7', 25
local OPERATION_STEP, OPERATION_STEP_BYTES = '>I7I7I7', 21

function operation_record.parse(raw)
  local bytes = #raw - OPERATION_BYTES
  if bytes < 0 or bytes % OPERATION_STEP_BYTES ~= 0 then
    return nil
  end
  local fingerprint, expires = struct.unpack(OPERATION, raw, 3)
  local record = { fingerprint = fingerprint, expires = expires, charges = {} }
  for from = OPERATION_BYTES + 1, #raw, OPERATION_STEP_BYTES do
    local charged, at, number = struct.unpack(OPERATION_STEP, raw, from)
    if not are_exact(expires, charged, at, number) then
      return nil
    end
    record.charges[#record.charges + 1] = { charged = charged, at = at, number = number }
  end
  return record
end

function operation_record.over(record)
  return record.expires <= now
end

function operation_record.save(key, record)
  local parts = {
    operation_record.head,
    struct.pack(OPERATION, record.fingerprint, record.expires),
  }
  for _, charge in ipairs(record.charges) do
    parts[#parts + 1] = struct.pack(OPERATION_STEP, charge.charged, charge.at, charge.number)
  end
  call('SET', key, table.concat(parts), 'PX', time_to_live(0, record.expires))
end

local nothing = { charged = 0, at = 0, number = 0 }

-- Answers a group that was admitted before: what is used as of now, and what it charged then.
local function replay(group, record)
  for index = 1, #group do
    local step = group[index]
    local obstacle, stranger = obstacle_to(step)
    local plans = make(step.action >= ACQUIRE and step.action <= RELEASE and LEASES or RESERVATIONS)
    if not obstacle then
      obstacle = plans.plan_again(step, record.charges[step.place + 1] or nothing)
    end
    if not obstacle then
      step.charged, step.mark_at, step.mark_number = plans.execute(step)
      step.used, step.reset = use_of(step)
    elseif step.shadow then
      step.verdict = UNSEEN
    else
      return { obstacle, index - 1, stranger }
    end
  end
  return reply_to(group)
end

-- Whether a charge of the operation was given back: then it must not be admitted again for it.
local function is_given_back(group)
  for index = 1, #group do
    local step = group[index]
    if step.refund and state_in(step.refund, RECORDS) then
      return true
    end
  end
end

-- Remembers what an admitted group charged.
local function remember(group)
  local charges = {}
  for index = 1, #group do
    local step = group[index]
    charges[step.place + 1] = {
      charged = step.charged,
      at = step.mark_at,
      number = step.mark_number,
    }
  end
  keep_in(group.operation, operation_record, {
    fingerprint = group.fingerprint,
    expires = group.expires,
    charges = charges,
  })
end

local function apply(group)
  local operation = group.operation
  if operation.foreign then
    return { FOREIGN, 0 }
  elseif stranger_in(operation, OPERATIONS) == 0 then
    return { OTHER_VERSION, 0 }
  end
  local record = state_in(operation, OPERATIONS)
  if is_given_back(group) or record and record.fingerprint ~= group.fingerprint then
    return { OPERATION_CONFLICT }
  elseif record then
    return replay(group, record)
  end
  local reply, is_admitted = apply_new(group)
  if is_admitted then
    remember(group)
  end
  return reply
end

return { kind = operation_record, apply = apply }
