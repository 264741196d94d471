-- How charges that have a record are planned and done: reservations, and what is given back. Mirrors plan.rs. See apply.lua for
-- what a plan is.
local records = make(RECORDS)
local charge_record, bury, done = records.kind, records.bury, records.done

-- How long a refund is remembered at least (us): a retry comes sooner. And how old a charge may become that is given back: no
-- record of a long window lives for longer.
local REFUND_MEMORY, MAX_HOLD = 60000000, 604800000000

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
  elseif step.at + MAX_HOLD <= now then
    return EXPIRED
  end
  local expires = math.min(step.algorithm.counts_until(step.quota, step.at, step.number), step.at + MAX_HOLD)
  return adjust(step, {
    cost = step.cost,
    charged = step.cost,
    at = step.at,
    number = step.number,
  }, 0, REFUNDED, math.max(expires, moment(now + REFUND_MEMORY)))
end

local function plan(step)
  local action, record = step.action, state_in(step.record, RECORDS)
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

return {
  plan = plan,
  execute = function(step)
    local does = step.does
    if does == 'done' then
      local record = step.found
      return record.charged, record.at, record.number
    elseif does == 'reserve' then
      return reserve(step)
    elseif does == 'adjust' then
      return make_adjustment(step)
    end
    bury(step)
    return 0, 0, 0
  end,
  -- What an operation's charge was, and what its reservation still is; or why that must not be admitted again.
  plan_again = function(step, charge)
    if step.action ~= RESERVE then
      return done(step, charge, REPLAY_DONE)
    end
    local record = state_in(step.record, RECORDS)
    if not record then
      return EXPIRED
    end
    return reserved(step, record)
  end,
}
