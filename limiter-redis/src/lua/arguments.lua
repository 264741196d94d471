-- The arguments of a call, each checked. See main.lua for their order.
local CHARGE, PEEK, RESET, REFUND, RESERVE, SETTLE, CANCEL, ACQUIRE, RENEW, RELEASE, DEBIT =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local CALL, CALL_BYTES = '>I7', 7
local GROUP, GROUP_BYTES = '>I2I2I7c16', 27
local STEP, STEP_BYTES = '>I2BBBBI2I2I7I7I7I7I7I7I7c16', 75

local function refuse(what)
  fail({ err = 'BADARG ' .. what })
end

-- The cell of a key; nil for none.
local function cell_or_none(index, kind)
  if index == 0 then
    return nil
  end
  return KEYS[index] and cell_of(index, kind) or refuse('no key has the number ' .. index)
end

-- What each action needs after its quota is right.
local function check_action(action, algorithm, record)
  local has_lease = action == ACQUIRE or action == RENEW or action == RELEASE
  local has_record = action >= REFUND and action <= CANCEL or action == ACQUIRE or action == RELEASE
  if action > DEBIT or has_lease and not algorithm.find or has_record ~= (record > 0) then
    refuse('no such action: ' .. action)
  end
end

local function read_step(text, from)
  local key, shadow, action, place, number, refund, record, a, b, c, d, cost, x, y, lease =
    struct.unpack(STEP, text, from)
  local algorithm = number < CHARGE_RECORDS and make(number) or refuse('no such algorithm: ' .. number)
  if not are_exact(a, b, c, d, cost, x, y) then
    refuse('a number is above 2^53-1')
  end
  if action > PEEK then
    check_action(action, algorithm, record)
  end
  local records = refund + record > 0 and make(CHARGE_RECORDS).kind
  return {
    cell = cell_or_none(key, algorithm.kind) or refuse('a step has no key'),
    algorithm = algorithm,
    quota = algorithm.quota(a, b, c, d) or refuse('a quota has a number out of its range'),
    shadow = shadow == 1,
    -- A charge of nothing only looks.
    action = action == CHARGE and cost == 0 and PEEK or action,
    place = place,
    refund = cell_or_none(refund, records),
    record = cell_or_none(record, records),
    cost = cost,
    lease = lease,
    -- Of a refund, its mark; of a debit, its life; else now and a time to live.
    at = x,
    number = y,
    life = x,
    expires = moment(now + x),
    -- The plan, and what is found and done.
    does = '',
    asks = 0,
    takes = false,
    verdict = 0,
    used = 0,
    wait = 0,
    reset = 0,
    charged = 0,
    mark_at = 0,
    mark_number = 0,
  }
end

local function read_group(text)
  if #text < GROUP_BYTES then
    refuse('a group is cut short')
  end
  local count, operation, ttl, fingerprint = struct.unpack(GROUP, text)
  if #text ~= GROUP_BYTES + count * STEP_BYTES then
    refuse('a group is not as long as its steps')
  end
  local group = {}
  if operation > 0 then
    group.operation = cell_or_none(operation, make(OPERATION_RECORDS).kind)
    group.fingerprint, group.expires = fingerprint, moment(now + ttl)
  end
  for index = 1, count do
    group[index] = read_step(text, GROUP_BYTES + 1 + (index - 1) * STEP_BYTES)
  end
  return group
end
