-- What one step of a group finds and does at its key.

-- The state that a step's key holds, and its view, until the key's next change.
local function view_of(step)
  local cell = step.cell
  if step.view_at ~= cell.changes then
    local algorithm = step.algorithm
    step.stored = state_in(cell, algorithm.kind.name)
    step.view = algorithm.view(step.stored, step.quota, now)
    step.view_at = cell.changes
  end
  return step.stored, step.view
end

-- Whether `cost` would be admitted now, and how long to wait if not (us). A cost of 0 always is.
local function verdict_on(step, cost)
  if cost > step.quota.capacity then
    return NEVER, 0
  elseif cost == 0 then
    return ADMIT, 0
  end
  local stored, view = view_of(step)
  local wait = step.algorithm.wait(stored, view, step.quota, now, cost)
  return wait == 0 and ADMIT or DENY, wait
end

-- The same for a debit, which then knows how much it takes; and the life that is granted.
local function verdict_on_debit(step)
  local algorithm, quota = step.algorithm, step.quota
  local _, view = view_of(step)
  local free, life = algorithm.debitable(view, quota, now, step.life)
  step.amount = math.min(free, step.cost)
  if step.amount > 0 then
    return ADMIT, 0, life
  elseif algorithm.never_debits and algorithm.never_debits(quota, step.life) then
    return NEVER, 0, 0
  end
  local verdict, wait = verdict_on(step, 1)
  return verdict, wait, 0
end

-- What is used as of now, and how long until all is free (us).
local function use_of(step)
  local stored, view = view_of(step)
  local algorithm, quota = step.algorithm, step.quota
  return algorithm.used(view, quota, now), algorithm.wait(stored, view, quota, now, quota.capacity)
end

-- Makes a change that was decided before: how much was charged or given back, and where a charge stands. `wanted` has what the
-- change does, its amount, and what else an algorithm needs for it.
local function change(step, wanted)
  local does = wanted.does
  local stored, view = view_of(step)
  -- Only what takes something creates a state.
  if
    not stored
    and does ~= 'charge'
    and does ~= 'debit'
    and does ~= 'overrun'
    and does ~= 'acquire'
  then
    return 0, 0, 0
  end
  local cell, algorithm, quota = step.cell, step.algorithm, step.quota
  if does == 'keep' and not (algorithm.mends and algorithm.mends(stored, view, quota)) then
    return 0, 0, 0
  end
  local state, amount, at, number = algorithm.write(stored, view, quota, now, wanted, cell.key)
  -- What moves nothing writes nothing: it must not open a window, nor tell whether Redis still held what
  -- is over.
  local adjusts = does == 'give_back' or does == 'overrun'
  if amount > 0 or (stored and not adjusts) then
    keep_in(cell, algorithm.kind, state)
  else
    -- The view may have been changed with it.
    step.view_at = nil
  end
  return amount, at or 0, number or 0
end
