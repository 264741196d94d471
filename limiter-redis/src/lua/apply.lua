-- A group applied to the cells. Mirrors plan.rs and apply.rs: the same plans, in the same order.

-- What the reply has for a step: two bytes, then seven numbers of 7 bytes.
local REPLY_STEP = '>BBI7I7I7I7I7I7I7'

-- What keeps a step from being planned at all: a value that is not this step's to work on.
local function obstacle_to(step)
  local cell, record = step.cell, step.record or step.refund
  if cell.foreign or record and record.foreign then
    return FOREIGN
  elseif record and stranger_in(record, RECORDS) == 0 then
    return OTHER_VERSION
  elseif step.action ~= RESET then
    local stranger = stranger_in(cell, step.algorithm.kind.name)
    if stranger == 0 then
      return OTHER_VERSION
    elseif stranger then
      return STRANGER, stranger
    end
  end
end

-- What a step does if its group is admitted; or what stands in its way.
local function plan(step)
  local action = step.action
  if action == CHARGE then
    step.does, step.asks, step.takes, step.amount = 'charge', step.cost, true, step.cost
  elseif action == PEEK then
    step.does, step.asks = 'look', step.cost
  elseif action == DEBIT then
    step.does, step.takes = 'debit', true
  elseif action == RESET then
    step.does = 'reset'
  else
    return make(action < ACQUIRE and RESERVATIONS or LEASES).plan(step)
  end
end

-- Plans all steps; the group's reply if it cannot be done. A shadow never blocks: what stands in its way leaves it unseen.
local function plan_all(group)
  for index = 1, #group do
    local step = group[index]
    local obstacle, stranger = obstacle_to(step)
    obstacle = obstacle or plan(step)
    if obstacle and not step.shadow then
      return { obstacle, index - 1, stranger }
    elseif obstacle then
      step.does, step.asks, step.takes, step.verdict = 'unseen', 0, false, UNSEEN
      step.replay, step.actual = nil, nil
    end
  end
end

-- What a step asks of its key, with what the group's earlier steps take from the same key.
local function total_cost(group, index)
  local step = group[index]
  local total = step.asks
  if total > 0 then
    for earlier = 1, index - 1 do
      local other = group[earlier]
      if other.takes and other.cell == step.cell then
        total = total + other.asks
      end
    end
  end
  return math.min(total, MAX_INTEGER)
end

-- Whether all steps are admitted, and what each finds before any is done.
local function look_at_all(group)
  local are_admitted = true
  for index = 1, #group do
    local step = group[index]
    if step.does == 'debit' then
      step.verdict, step.wait, step.granted = verdict_on_debit(step)
    elseif step.does ~= 'unseen' then
      step.verdict, step.wait = verdict_on(step, total_cost(group, index))
    end
    if step.does == 'look' then
      -- Peeks speak of the state before the group.
      step.used, step.reset = use_of(step)
    end
    are_admitted = are_admitted and (step.shadow or step.verdict == ADMIT)
  end
  return are_admitted
end

local function execute(step)
  local does = step.does
  if does == 'charge' or does == 'debit' then
    step.charged, step.mark_at, step.mark_number = change(step, step)
  elseif does == 'reset' then
    keep_in(step.cell, step.algorithm.kind, nil)
  elseif does ~= 'look' then
    step.charged, step.mark_at, step.mark_number =
      make(step.action < ACQUIRE and RESERVATIONS or LEASES).execute(step)
  end
end

-- What is sent of the steps: a text, since Redis takes long to send ten numbers.
local function reply_to(group)
  local reply = ''
  for index = 1, #group do
    local step = group[index]
    reply = reply
      .. struct.pack(
        REPLY_STEP,
        step.verdict,
        step.replay or NO_REPLAY,
        step.used,
        step.wait,
        step.reset,
        step.charged,
        step.mark_at,
        step.mark_number,
        step.actual or step.granted or 0
      )
  end
  return reply
end

-- The reply to a group that is not known, and whether it was admitted.
local function apply_new(group)
  local obstacle = plan_all(group)
  if obstacle then
    return obstacle, false
  end
  local are_admitted = look_at_all(group)
  for index = 1, #group do
    local step = group[index]
    local does = step.does
    if does ~= 'unseen' and does ~= 'look' then
      if step.takes and not (are_admitted and step.verdict == ADMIT) then
        -- Denied, and yet the state is kept as it reads now: the time to wait was computed from it.
        change(step, { does = 'keep' })
      elseif are_admitted then
        execute(step)
      end
      step.used, step.reset = use_of(step)
    end
    if not are_admitted then
      step.replay, step.actual = nil, nil
    end
  end
  return reply_to(group), are_admitted
end
