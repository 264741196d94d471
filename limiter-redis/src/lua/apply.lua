-- A group applied to the cells. Mirrors plan.rs and apply.rs: the same plans, in the same order.
local ADMIT, DENY, NEVER, UNSEEN = 0, 1, 2, 3
-- What stands in a group's way other than a denial.
local FOREIGN, EXPIRED, CONFLICT, OPERATION_CONFLICT, STRANGER, OTHER_VERSION = 1, 2, 3, 4, 5, 6
-- What is known of an earlier answer to the same request.
local NO_REPLAY, REPLAY_HELD, REPLAY_SETTLED, REPLAY_DONE = 0, 1, 2, 3

-- How many integers the reply has for a step.
local REPLIED = 9

-- How long a refund is remembered at least (us): a retry comes sooner.
local REFUND_MEMORY = 60000000

local NOBODY_LOOKS = { does = 'unseen', asks = 0 }

-- The state of a step, and its view.
local function view_of(step)
  local stored = state_in(step.cell, step.algorithm.kind)
  return stored, step.algorithm.view(stored, step.quota, now)
end

-- Whether `cost` would be admitted now, what is used, how long to wait, and until all is free (us). A cost
-- of 0 always is.
local function look(step, cost)
  local algorithm, quota = step.algorithm, step.quota
  local stored, view = view_of(step)
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

-- The same for a debit, whose plan then says how much it takes; and the life that is granted.
local function look_debit(step, planned)
  local algorithm, quota = step.algorithm, step.quota
  local verdict, used, wait, reset = look(step, 1)
  local _, view = view_of(step)
  local free, life = algorithm.debitable(view, quota, now, step.life)
  planned.amount = math.min(free, step.cost)
  if planned.amount > 0 then
    return ADMIT, used, 0, reset, life
  elseif algorithm.never_debits and algorithm.never_debits(quota, step.life) then
    return NEVER, used, 0, reset, 0
  end
  return verdict, used, wait, reset, 0
end

-- Makes a change that was decided before: how much was charged or given back, and where a charge stands.
local function change(step, wanted)
  local algorithm, quota = step.algorithm, step.quota
  local does = wanted.does
  local takes = does == 'charge' or does == 'debit' or does == 'overrun' or does == 'acquire'
  local stored = state_in(step.cell, algorithm.kind)
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
local function done(record, replay, actual)
  return {
    does = 'done',
    asks = 0,
    charged = record.charged,
    at = record.at,
    number = record.number,
    replay = replay,
    actual = actual,
  }
end

-- A charge that stands changes to another amount; it is remembered until `expires`, or as long as it was to be.
local function adjust(record, to, status, expires)
  return {
    does = 'adjust',
    asks = 0,
    record = record,
    to = to,
    status = status,
    expires = expires or record.expires,
    replay = record.status == CANCELLED and REPLAY_DONE or nil,
  }
end

-- What a reservation is to one who asks for it again; nil if it charges nothing any more, and so admits nothing.
local function reserved(record)
  if record.status == HELD then
    return done(record, REPLAY_HELD)
  elseif record.status == SETTLED then
    return done(record, REPLAY_SETTLED, record.actual)
  end
end

local function plan_refund(step, record)
  if record then
    return done(record, REPLAY_DONE)
  end
  local expires = step.algorithm.counts_until(step.quota, step.at, step.number)
  return adjust({
    cost = step.cost,
    charged = step.cost,
    at = step.at,
    number = step.number,
    expires = math.max(expires, moment(now + REFUND_MEMORY)),
  }, 0, REFUNDED)
end

local function plan_recorded(step)
  local action, record = step.action, state_in(step.record, charge_record)
  if action == REFUND then
    return plan_refund(step, record)
  elseif action == RESERVE then
    if not record then
      return { does = 'reserve', asks = step.cost, takes = true }
    end
    local planned = record.cost == step.cost and reserved(record)
    return planned or nil, CONFLICT
  elseif action == CANCEL and not record then
    return { does = 'bury', asks = 0 }
  elseif not record then
    return nil, EXPIRED
  elseif action == SETTLE then
    if record.status == HELD then
      return adjust(record, step.actual, SETTLED)
    elseif record.status == SETTLED and record.actual == step.actual then
      return done(record, REPLAY_DONE)
    end
    return nil, CONFLICT
  elseif record.status == SETTLED then
    return nil, CONFLICT
  end
  -- Once more, it is only remembered for longer: what the refill has paid is not given back then either.
  local to = record.status == HELD and 0 or record.charged
  return adjust(record, to, CANCELLED, math.max(record.expires, step.expires))
end

local function plan_lease(step)
  local action, lease = step.action, step.lease
  if action == RELEASE then
    return { does = 'release', asks = 0, lease = lease }
  elseif action == ACQUIRE and state_in(step.record, charge_record) then
    -- It was released.
    return nil, CONFLICT
  end
  local held = step.algorithm.find(state_in(step.cell, step.algorithm.kind), lease)
  if held and (action == RENEW or held.cost == step.cost) then
    return {
      does = 'renew',
      asks = 0,
      lease = lease,
      expires = step.expires,
      replay = action == ACQUIRE and REPLAY_HELD or nil,
    }
  elseif held then
    return nil, CONFLICT
  elseif action == RENEW then
    return nil, EXPIRED
  end
  return {
    does = 'acquire',
    asks = step.cost,
    takes = true,
    lease = lease,
    amount = step.cost,
    expires = step.expires,
  }
end

-- What a step does if its group is admitted; or nil and what stands in its way.
local function plan(step)
  if step.action == CHARGE then
    return { does = 'charge', asks = step.cost, takes = true, amount = step.cost }
  elseif step.action == PEEK then
    return { does = 'look', asks = step.cost }
  elseif step.action == DEBIT then
    return { does = 'debit', asks = 0, takes = true, life = step.life }
  elseif step.action == RESET then
    return { does = 'reset', asks = 0 }
  elseif step.lease then
    return plan_lease(step)
  end
  return plan_recorded(step)
end

-- Remembers an id as done with; what is remembered already is not forgotten sooner.
local function bury(step)
  local known = state_in(step.record, charge_record)
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

-- Does what was planned; what stands charged after it, and where.
local function execute(planned, step)
  local does = planned.does
  if does == 'done' then
    return planned.charged, planned.at, planned.number
  elseif does == 'look' then
    return 0, 0, 0
  elseif does == 'reset' then
    keep_in(step.cell, step.algorithm.kind, nil)
    return 0, 0, 0
  elseif does == 'bury' then
    bury(step)
    return 0, 0, 0
  elseif does == 'release' then
    local amount, at, number = change(step, planned)
    bury(step)
    return amount, at, number
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
    expires = planned.expires,
  })
  return charged, record.at, record.number
end

-- What keeps a step from being planned at all: a value that is not this step's to work on.
local function obstacle_to(step)
  local record = step.record or step.refund
  if step.cell.foreign or record and record.foreign then
    return FOREIGN
  elseif record and stranger_in(record, charge_record) == 0 then
    return OTHER_VERSION
  elseif step.action ~= RESET then
    local stranger = stranger_in(step.cell, step.algorithm.kind)
    if stranger == 0 then
      return OTHER_VERSION
    elseif stranger then
      return STRANGER, stranger
    end
  end
end

-- The plans of all steps; or nil and the group's reply that it cannot be done. A shadow never blocks: what stands in its way
-- leaves it unseen.
local function plan_all(group)
  local plans = {}
  for index, step in ipairs(group) do
    local obstacle, stranger = obstacle_to(step)
    local planned
    if not obstacle then
      planned, obstacle = plan(step)
    end
    if planned then
      plans[index] = planned
    elseif step.shadow then
      plans[index] = NOBODY_LOOKS
    else
      return nil, { obstacle, index - 1, stranger }
    end
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

-- Writes a step's part of the reply.
local function report(reply, index, ...)
  local place = REPLIED * (index - 1) + 1
  for offset, number in ipairs({ ... }) do
    reply[place + offset] = number
  end
end

-- The group's reply, and what each step charged if it was admitted.
local function apply_new(group)
  local plans, obstacle = plan_all(group)
  if not plans then
    return obstacle
  end
  local reply, admitted = { 0 }, true
  for index, step in ipairs(group) do
    local planned = plans[index]
    local verdict, used, wait, reset, life = UNSEEN, 0, 0, 0, 0
    if planned.does == 'debit' then
      verdict, used, wait, reset, life = look_debit(step, planned)
    elseif planned ~= NOBODY_LOOKS then
      verdict, used, wait, reset = look(step, total_cost(group, plans, index))
    end
    report(reply, index, verdict, used, wait, reset, 0, 0, 0, NO_REPLAY, life or 0)
    admitted = admitted and (step.shadow or verdict == ADMIT)
  end
  local charges = {}
  for index, step in ipairs(group) do
    local planned, place = plans[index], REPLIED * (index - 1) + 2
    local charged, at, number = 0, 0, 0
    if planned == NOBODY_LOOKS then
      charged = 0
    elseif planned.takes and not (admitted and reply[place] == ADMIT) then
      -- Denied, and yet the state is kept as it reads now: the time to wait was computed from it.
      change(step, { does = 'keep' })
    elseif admitted then
      charged, at, number = execute(planned, step)
      if planned.replay then
        reply[place + 7], reply[place + 8] = planned.replay, planned.actual or 0
      end
    end
    -- Peeks speak of the state before the group.
    if step.action ~= PEEK and planned ~= NOBODY_LOOKS then
      local _, used, _, reset = look(step, 0)
      reply[place + 1], reply[place + 3] = used, reset
    end
    reply[place + 4], reply[place + 5], reply[place + 6] = charged, at, number
    charges[step.place and step.place + 1 or index] = { charged, at, number }
  end
  return reply, admitted and charges
end

-- What an operation's step was, and still is; or nil and why it no longer stands, so that it must not be admitted again.
local function plan_again(step, charge)
  if step.action == RESERVE then
    local record = state_in(step.record, charge_record)
    if not record then
      return nil, EXPIRED
    end
    return reserved(record), CONFLICT
  elseif step.action == ACQUIRE then
    if not step.algorithm.find(state_in(step.cell, step.algorithm.kind), step.lease) then
      return nil, EXPIRED
    end
    return done({ charged = charge[1], at = charge[2], number = charge[3] }, REPLAY_HELD)
  end
  return done({ charged = charge[1], at = charge[2], number = charge[3] }, REPLAY_DONE)
end

-- Answers a group that was admitted before: what is used as of now, and what it charged then.
local function replay(group, record)
  local reply = { 0 }
  for index, step in ipairs(group) do
    local obstacle, stranger = obstacle_to(step)
    local planned
    if not obstacle then
      planned, obstacle = plan_again(step, record.charges[step.place + 1] or { 0, 0, 0 })
    end
    if planned then
      local verdict, used, wait, reset = look(step, 0)
      report(
        reply,
        index,
        verdict,
        used,
        wait,
        reset,
        planned.charged,
        planned.at,
        planned.number,
        planned.replay,
        planned.actual or 0
      )
    elseif step.shadow then
      report(reply, index, UNSEEN, 0, 0, 0, 0, 0, 0, NO_REPLAY, 0)
    else
      return { obstacle, index - 1, stranger }
    end
  end
  return reply
end

-- Whether a charge of the operation was given back: then it must not be admitted again for it.
local function is_given_back(group)
  for _, step in ipairs(group) do
    if step.refund and state_in(step.refund, charge_record) then
      return true
    end
  end
end

local function apply_group(group)
  local operation = group.operation
  if not operation then
    return (apply_new(group))
  elseif operation.foreign then
    return { FOREIGN, 0 }
  elseif stranger_in(operation, operation_record) == 0 then
    return { OTHER_VERSION, 0 }
  end
  local record = state_in(operation, operation_record)
  if is_given_back(group) or record and record.fingerprint ~= group.fingerprint then
    return { OPERATION_CONFLICT }
  elseif record then
    return replay(group, record)
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
