-- A group applied to the cells. Mirrors apply.rs: the same plans, in the same order.
local ADMIT, DENY, NEVER = 0, 1, 2
-- What stands in a group's way other than a denial.
local FOREIGN, EXPIRED, CONFLICT, OPERATION_CONFLICT = 1, 2, 3, 4

-- How long a refund is remembered at least (us): a retry comes sooner.
local REFUND_MEMORY = 60000000

local NOTHING = { does = 'nothing', asks = 0 }

-- Whether `cost` would be admitted now, what is used, how long to wait, and until all is free (us). A cost
-- of 0 always is.
local function look(step, cost)
  local algorithm, quota = step.algorithm, step.quota
  local stored = state_in(step.cell, algorithm.kind)
  local view = algorithm.view(stored, quota, now)
  local verdict, wait = ADMIT, 0
  if cost > quota.capacity then
    verdict = NEVER
  elseif cost > 0 then
    wait = algorithm.wait(stored, view, quota, now, cost)
    verdict = wait == 0 and ADMIT or DENY
  end
  local used = algorithm.used(view, quota, now)
  return verdict, used, wait, algorithm.wait(stored, view, quota, now, quota.capacity)
end

-- Makes a change that was decided before: how much was charged or given back, and where a charge stands.
local function change(step, wanted)
  if step.cell.foreign then
    -- Only a shadow comes here. Nothing is kept, so nothing is charged that could be given back.
    return 0, 0, 0
  end
  local algorithm, quota = step.algorithm, step.quota
  local stored = state_in(step.cell, algorithm.kind)
  local does = wanted.does
  local takes = does == 'charge' or does == 'overrun' or does == 'acquire'
  -- Only what takes something creates a state.
  if not stored and not takes then
    return 0, 0, 0
  end
  local view = algorithm.view(stored, quota, now)
  if does == 'keep' and not algorithm.mends(stored, view, quota) then
    return 0, 0, 0
  end
  local state, amount, at, number = algorithm.write(stored, view, quota, now, wanted)
  -- What moves nothing writes nothing: it must not open a window, nor tell whether Redis still held what
  -- is over.
  local adjusts = does == 'give_back' or does == 'overrun'
  if amount > 0 or (stored and not adjusts) then
    keep_in(step.cell, algorithm.kind, state)
  end
  return amount, at or 0, number or 0
end

-- Nothing, because it was done before, with what stands of it.
local function done(record)
  return {
    does = 'done',
    asks = 0,
    charged = record.charged,
    at = record.at,
    number = record.number,
  }
end

-- A charge that stands changes to another amount.
local function adjust(record, to, status)
  return { does = 'adjust', asks = 0, record = record, to = to, status = status }
end

local function plan_recorded(step)
  local action, record = step.action, state_in(step.record, charge_record)
  if action == REFUND then
    if record then
      return done(record)
    end
    local expires = step.algorithm.counts_until(step.quota, step.at, step.number)
    return adjust({
      cost = step.cost,
      charged = step.cost,
      at = step.at,
      number = step.number,
      expires = math.max(expires, moment(now + REFUND_MEMORY)),
    }, 0, REFUNDED)
  elseif action == RESERVE then
    if not record then
      return { does = 'reserve', asks = step.cost, takes = true }
    elseif record.cost == step.cost and record.status ~= CANCELLED then
      -- One that was cancelled charges nothing, and so admits nothing.
      return done(record)
    end
    return nil, CONFLICT
  elseif not record then
    return nil, EXPIRED
  elseif action == SETTLE then
    if record.status == HELD then
      return adjust(record, step.actual, SETTLED)
    elseif record.status == SETTLED and record.actual == step.actual then
      return done(record)
    end
    return nil, CONFLICT
  elseif record.status == HELD then
    return adjust(record, 0, CANCELLED)
  elseif record.status == SETTLED then
    return nil, CONFLICT
  end
  return done(record)
end

local function plan_lease(step)
  local action, lease = step.action, step.lease
  local held = find_lease(state_in(step.cell, concurrency.kind), lease)
  if action == RELEASE then
    return { does = 'release', asks = 0, lease = lease }
  elseif held and (action == RENEW or held.cost == step.cost) then
    return { does = 'renew', asks = 0, lease = lease, expires = step.expires }
  elseif held then
    return nil, CONFLICT
  elseif action == RENEW then
    return nil, EXPIRED
  end
  local cost = step.cost
  return {
    does = 'acquire',
    asks = cost,
    takes = true,
    lease = lease,
    amount = cost,
    expires = step.expires,
  }
end

-- What a step does if its group is admitted; or nil and what stands in its way.
local function plan(step)
  if step.action == CHARGE then
    return { does = 'charge', asks = step.cost, takes = true, amount = step.cost }
  elseif step.action == PEEK then
    return { does = 'look', asks = step.cost }
  elseif step.action == RESET then
    return { does = 'reset', asks = 0 }
  elseif step.lease then
    return plan_lease(step)
  end
  return plan_recorded(step)
end

-- Does what was planned; what stands charged after it, and where.
local function execute(planned, step)
  local does = planned.does
  if does == 'done' then
    return planned.charged, planned.at, planned.number
  elseif does == 'nothing' or does == 'look' then
    return 0, 0, 0
  elseif does == 'reset' then
    keep_in(step.cell, step.algorithm.kind, nil)
    return 0, 0, 0
  elseif does == 'reserve' then
    local charged, at, number = change(step, { does = 'charge', amount = step.cost })
    keep_in(step.record, charge_record, {
      status = HELD,
      cost = step.cost,
      actual = 0,
      charged = charged,
      at = at,
      number = number,
      expires = step.expires,
    })
    return charged, at, number
  elseif does ~= 'adjust' then
    return change(step, planned)
  end
  local record, charged = planned.record, planned.record.charged
  local difference = { at = record.at, number = record.number }
  if planned.to < charged then
    difference.does, difference.amount = 'give_back', charged - planned.to
    charged = charged - change(step, difference)
  elseif planned.to > charged then
    difference.does, difference.amount = 'overrun', planned.to - charged
    charged = charged + change(step, difference)
  end
  keep_in(step.record, charge_record, {
    status = planned.status,
    cost = record.cost,
    actual = planned.status == SETTLED and planned.to or 0,
    charged = charged,
    at = record.at,
    number = record.number,
    expires = record.expires,
  })
  return charged, record.at, record.number
end

-- The plans of all steps; or nil and the group's reply that it cannot be done.
local function plan_all(group)
  local plans = {}
  for index, step in ipairs(group) do
    local foreign = step.cell.foreign or step.record and step.record.foreign
    local planned, obstacle
    if foreign and not step.shadow then
      return nil, { FOREIGN, index - 1 }
    elseif foreign then
      -- A shadow never blocks: such a key is counted as unreadable and left alone.
      unreadable = unreadable + 1
    end
    if not (step.record and step.record.foreign) then
      planned, obstacle = plan(step)
    end
    if obstacle and not step.shadow then
      return nil, { obstacle, index - 1 }
    end
    plans[index] = planned or NOTHING
  end
  return plans
end

-- What a step asks of its key, with what the group's earlier steps take from the same key.
local function total_cost(group, plans, index)
  local total = plans[index].asks
  if total == 0 then
    return 0
  end
  for earlier = 1, index - 1 do
    if plans[earlier].takes and group[earlier].cell == group[index].cell then
      total = total + plans[earlier].asks
    end
  end
  return math.min(total, MAX_INTEGER)
end

-- The group's reply, and what each step charged if it was admitted.
local function apply_new(group)
  local plans, obstacle = plan_all(group)
  if not plans then
    return obstacle
  end
  local reply, admitted = { 0 }, true
  for index, step in ipairs(group) do
    local verdict, used, wait, reset = look(step, total_cost(group, plans, index))
    local place = 7 * index - 5
    reply[place], reply[place + 1], reply[place + 2], reply[place + 3] = verdict, used, wait, reset
    reply[place + 4], reply[place + 5], reply[place + 6] = 0, 0, 0
    admitted = admitted and (step.shadow or verdict == ADMIT)
  end
  local charges = {}
  for index, step in ipairs(group) do
    local planned, place = plans[index], 7 * index - 5
    local charged, at, number = 0, 0, 0
    if planned.takes and not (admitted and reply[place] == ADMIT) then
      -- Denied, and yet what the waiting time counts on has to be kept.
      change(step, { does = 'keep' })
    elseif admitted then
      charged, at, number = execute(planned, step)
    end
    -- Peeks speak of the state before the group.
    if step.action ~= PEEK then
      local _, used, _, reset = look(step, 0)
      reply[place + 1], reply[place + 3] = used, reset
    end
    reply[place + 4], reply[place + 5], reply[place + 6] = charged, at, number
    charges[index] = { charged, at, number }
  end
  return reply, admitted and charges
end

-- Answers a group that was admitted before: what is used as of now, and what it charged then.
local function replay(group, record)
  local reply = { 0 }
  for index, step in ipairs(group) do
    local charge = record.charges[index] or { 0, 0, 0 }
    local place = 7 * index - 5
    reply[place], reply[place + 1], reply[place + 2], reply[place + 3] = look(step, 0)
    reply[place + 4], reply[place + 5], reply[place + 6] = charge[1], charge[2], charge[3]
  end
  return reply
end

local function apply_group(group)
  local operation = group.operation
  if not operation then
    return (apply_new(group))
  elseif operation.foreign then
    return { FOREIGN, 0 }
  end
  local record = state_in(operation, operation_record)
  if record and record.fingerprint == group.fingerprint then
    return replay(group, record)
  elseif record then
    return { OPERATION_CONFLICT }
  end
  local reply, charges = apply_new(group)
  if charges then
    keep_in(operation, operation_record, {
      fingerprint = group.fingerprint,
      expires = group.expires,
      charges = charges,
    })
  end
  return reply
end
