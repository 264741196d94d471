-- The arguments of a call, each checked. See main.lua for their order.
local CALL, CALL_BYTES = '>I7', 7
local GROUP, GROUP_BYTES = '>I2I2I7c16', 27
local STEP, STEP_BYTES = '>I2BBBBI2I2I7I7I7I7I7I7I7c16', 75

local function refuse(what)
  fail({ err = 'BADARG ' .. what })
end

-- The cell of a key; nil for none.
local function cell_or_none(index, number)
  if index == 0 then
    return nil
  end
  return KEYS[index] and cell_of(index, number) or refuse('no key has the number ' .. index)
end

-- Leases are taken on concurrency, and nothing else is; and some actions have a record.
local function check_action(action, algorithm, record)
  local is_lease = action >= ACQUIRE and action <= RELEASE
  local has_record = action >= REFUND and action <= ACQUIRE or action == RELEASE
  local is_fit = is_lease == (algorithm.find ~= nil)
  if action > DEBIT or not is_fit and action ~= RESET or has_record ~= (record > 0) then
    refuse('no such action: ' .. action)
  end
end

local function read_step(text, from)
  local key, shadow, action, place, number, refund, record, a, b, c, d, cost, x, y, lease =
    struct.unpack(STEP, text, from)
  local algorithm = number < RECORDS and make(number) or refuse('no such algorithm: ' .. number)
  if not are_exact(a, b, c, d, cost, x, y) then
    refuse('a number is above 2^53-1')
  end
  if action ~= PEEK and cost + action > 0 then
    check_action(action, algorithm, record)
  end
  return {
    cell = cell_or_none(key, number) or refuse('a step has no key'),
    algorithm = algorithm,
    quota = algorithm.quota(a, b, c, d) or refuse('a quota has a number out of its range'),
    shadow = shadow == 1,
    -- A charge of nothing only looks.
    action = action == CHARGE and cost == 0 and PEEK or action,
    place = place,
    refund = cell_or_none(refund, RECORDS),
    record = cell_or_none(record, RECORDS),
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
    group.operation = cell_or_none(operation, OPERATIONS)
    group.fingerprint, group.expires = fingerprint, moment(now + ttl)
  end
  for index = 1, count do
    group[index] = read_step(text, GROUP_BYTES + 1 + (index - 1) * STEP_BYTES)
  end
  return group
end
