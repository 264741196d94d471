-- The arguments of a call, each checked. See main.lua for their order.
local CHARGE, PEEK, RESET, REFUND, RESERVE, SETTLE, CANCEL, ACQUIRE, RENEW, RELEASE, DEBIT =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

-- What each action has after the quota's numbers, in this order.
local HAS_RECORD = { [REFUND] = true, [RESERVE] = true, [SETTLE] = true, [CANCEL] = true }
local HAS_LEASE = { [ACQUIRE] = true, [RENEW] = true, [RELEASE] = true }
local HAS_COST = {
  [CHARGE] = true,
  [PEEK] = true,
  [REFUND] = true,
  [RESERVE] = true,
  [ACQUIRE] = true,
  [DEBIT] = true,
}
local HAS_EXPIRY = {
  [RESERVE] = true,
  [CANCEL] = true,
  [ACQUIRE] = true,
  [RENEW] = true,
  [RELEASE] = true,
}

local next_argument = 0

local function refuse(what)
  fail({ err = 'BADARG argument ' .. next_argument .. ' is no ' .. what })
end

local function argument(read_as, what)
  next_argument = next_argument + 1
  return read_as(ARGV[next_argument]) or refuse(what)
end

local function number_argument()
  return argument(integer, 'integer in 0..2^53-1')
end

local function digest_argument()
  return argument(digest, 'digest of 16 bytes')
end

local function key_argument()
  local key = number_argument()
  return KEYS[key] and key or refuse('key')
end

-- Now and a time to live.
local function expiry_argument()
  return moment(now + number_argument())
end

local function read_step(operation)
  local step = { cell = cell_of(key_argument()), shadow = number_argument() == 1 }
  local action = number_argument()
  step.algorithm = algorithm(number_argument()) or refuse('algorithm')
  local a, b, c, d = number_argument(), number_argument(), number_argument(), number_argument()
  step.quota = step.algorithm.quota(a, b, c, d) or refuse('quota with numbers in their ranges')
  if operation then
    step.place = number_argument()
    local refund = number_argument()
    step.refund = refund > 0 and cell_of(KEYS[refund] and refund or refuse('key'))
  end
  if HAS_LEASE[action] then
    if not step.algorithm.find then
      refuse('action')
    end
    step.lease = digest_argument()
  elseif action > PEEK and action ~= RESET and action ~= DEBIT and not HAS_RECORD[action] then
    refuse('action')
  end
  if HAS_RECORD[action] or action == ACQUIRE or action == RELEASE then
    step.record = cell_of(key_argument())
  end
  if HAS_COST[action] then
    step.cost = number_argument()
  end
  if action == REFUND then
    step.at, step.number = number_argument(), number_argument()
  elseif action == SETTLE then
    step.actual = number_argument()
  elseif action == DEBIT then
    step.life = number_argument()
  elseif HAS_EXPIRY[action] then
    step.expires = expiry_argument()
  end
  -- A charge of nothing only looks.
  step.action = action == CHARGE and step.cost == 0 and PEEK or action
  return step
end

local function read_group()
  local count, operation = number_argument(), number_argument()
  local group = {}
  if operation > 0 then
    group.operation = cell_of(KEYS[operation] and operation or refuse('key'))
    group.fingerprint, group.expires = digest_argument(), expiry_argument()
  end
  for index = 1, count do
    group[index] = read_step(operation > 0)
  end
  return group
end
