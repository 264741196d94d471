-- Plans of what has a record: reservations, refunds and leases; and how they are done. Mirrors plan.rs. A plan is what a
-- step `does`, what it `asks` of its key, and whether it `takes` that; or what stands in its way.

-- How long a refund is remembered at least (us): a retry comes sooner.
local REFUND_MEMORY = 60000000

-- Nothing, because it was done before, with what stands of it.
local function done(step, record, replay, actual)
  step.does, step.found, step.replay, step.actual = 'done', record, replay, actual
end

-- A charge that stands changes to another amount; it is remembered until `expires`, or as long as it was to be.
local function adjust(step, record, to, status, expires)
  step.does, step.found, step.to, step.status = 'adjust', record, to, status
  step.expires = expires or record.expires
  if record.status == CANCELLED then
    step.replay = REPLAY_DONE
  end
end

-- What a reservation is to one who asks for it again; a conflict if it charges nothing any more, and so admits nothing.
local function reserved(step, record)
  if record.status == HELD then
    return done(step, record, REPLAY_HELD)
  elseif record.status == SETTLED then
    return done(step, record, REPLAY_SETTLED, record.actual)
  end
  return CONFLICT
end

local function plan_refund(step, record)
  if record then
    return done(step, record, REPLAY_DONE)
  end
  local expires = step.algorithm.counts_until(step.quota, step.at, step.number)
  return adjust(step, {
    cost = step.cost,
    charged = step.cost,
    at = step.at,
    number = step.number,
  }, 0, REFUNDED, math.max(expires, moment(now + REFUND_MEMORY)))
end

local function plan_recorded(step)
  local action, record = step.action, state_in(step.record, charge_record)
  if action == REFUND then
    return plan_refund(step, record)
  elseif action == RESERVE then
    if not record then
      step.does, step.asks, step.takes = 'reserve', step.cost, true
      return nil
    end
    return record.cost ~= step.cost and CONFLICT or reserved(step, record)
  elseif action == CANCEL and not record then
    step.does = 'bury'
    return nil
  elseif not record then
    return EXPIRED
  elseif action == SETTLE then
    if record.status == HELD then
      return adjust(step, record, step.cost, SETTLED)
    elseif record.status == SETTLED and record.actual == step.cost then
      return done(step, record, REPLAY_DONE)
    end
    return CONFLICT
  elseif record.status == SETTLED then
    return CONFLICT
  end
  -- Once more, it is only remembered for longer: what the refill has paid is not given back then either.
  local to = record.status == HELD and 0 or record.charged
  return adjust(step, record, to, CANCELLED, math.max(record.expires, step.expires))
end

-- What a step with a lease or a record does if its group is admitted.
local function plan(step)
  local action, algorithm = step.action, step.algorithm
  if action < ACQUIRE then
    return plan_recorded(step)
  elseif action == RELEASE then
    step.does = 'release'
    return nil
  elseif action == ACQUIRE and state_in(step.record, charge_record) then
    -- It was released.
    return CONFLICT
  end
  local held = algorithm.find(view_of(step), step.lease, now)
  if held and (action == RENEW or held.cost == step.cost) then
    step.does, step.replay = 'renew', action == ACQUIRE and REPLAY_HELD or nil
  elseif held then
    return CONFLICT
  elseif action == RENEW then
    return EXPIRED
  else
    step.does, step.asks, step.takes, step.amount = 'acquire', step.cost, true, step.cost
  end
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

local function reserve(step)
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
end

local function make_adjustment(step)
  local record, to = step.found, step.to
  local charged = record.charged
  local difference = { at = record.at, number = record.number, does = nil, amount = nil }
  if to < charged then
    difference.does, difference.amount = 'give_back', charged - to
    charged = charged - change(step, difference)
  elseif to > charged then
    difference.does, difference.amount = 'overrun', to - charged
    charged = charged + change(step, difference)
  end
  keep_in(step.record, charge_record, {
    status = step.status,
    cost = record.cost,
    actual = step.status == SETTLED and to or 0,
    charged = charged,
    at = record.at,
    number = record.number,
    expires = step.expires,
  })
  return charged, record.at, record.number
end

-- Does what was planned; what stands charged after it, and where.
local function execute(step)
  local does = step.does
  if does == 'done' then
    local record = step.found
    return record.charged, record.at, record.number
  elseif does == 'bury' then
    bury(step)
    return 0, 0, 0
  elseif does == 'reserve' then
    return reserve(step)
  elseif does == 'adjust' then
    return make_adjustment(step)
  end
  local amount, at, number = change(step, step)
  if does == 'release' then
    bury(step)
  end
  return amount, at, number
end

-- What an operation's step was, and still is; or why it no longer stands, so that it must not be admitted again.
local function plan_again(step, charge)
  if step.action == RESERVE then
    local record = state_in(step.record, charge_record)
    if not record then
      return EXPIRED
    end
    return reserved(step, record)
  elseif step.action == ACQUIRE and not step.algorithm.find(view_of(step), step.lease, now) then
    return EXPIRED
  end
  return done(step, charge, step.action == ACQUIRE and REPLAY_HELD or REPLAY_DONE)
end

return { kind = charge_record, plan = plan, execute = execute, plan_again = plan_again }
