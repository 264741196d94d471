-- Runs a batch of groups. Reads first, decides, and writes last, so that an error leaves nothing
-- half done; group k sees what the groups before it did.
--
-- KEYS: each key once.
-- ARGV: floor of the TTLs of states that only time makes fresh (ms), number of groups; for each group
-- its number of steps; for each step nine integers: key (index in KEYS), shadow (0, 1), action
-- (0 charge, 1 peek, 2 reset), algorithm (1 fixed window, 2 sliding window, 3 token bucket), four numbers of
-- the quota, cost.
-- Reply: the number of unreadable values that were taken for fresh ones, then for each group either
-- {0, verdict, used, retry_after, reset_after, verdict, ...} (verdict: 0 admit, 1 deny, 2 never; times
-- in us) or {1, index of the step whose key is of another type}.
local CHARGE, PEEK, RESET = 0, 1, 2
local ADMIT, DENY, NEVER = 0, 1, 2
local algorithms = { fixed_window, sliding_window, token_bucket }

local now = clock.now()
local next_argument = 0
local floor
local cells = {}
local unreadable = 0

local function argument()
  next_argument = next_argument + 1
  local value = integer(ARGV[next_argument])
  if not value then
    fail({ err = 'BADARG argument ' .. next_argument .. ' is no integer in 0..2^53-1' })
  end
  return value
end

local function read_step()
  local step = { key = argument(), shadow = argument() == 1, action = argument() }
  step.algorithm = algorithms[argument()]
  local a, b, c, d = argument(), argument(), argument(), argument()
  step.cost = argument()
  if not KEYS[step.key] or not step.algorithm or step.action > RESET then
    fail({ err = 'BADARG a step names no key, action or algorithm' })
  end
  step.quota = step.algorithm.quota(a, b, c, d)
  if not step.quota then
    fail({ err = 'BADARG a quota has a number out of its range' })
  end
  if step.action == CHARGE and step.cost == 0 then
    step.action = PEEK
  end
  return step
end

-- A key's value: as read, or as earlier groups of this call left it.
local function cell_of(step)
  local cell = cells[step.key]
  if not cell then
    local raw = clock.get(KEYS[step.key])
    cell = { raw = raw, foreign = raw == nil }
    cells[step.key] = cell
  end
  return cell
end

local function settled(step, cell)
  local state
  if cell.changed then
    state = cell.algorithm == step.algorithm and cell.state or nil
  elseif cell.raw then
    if cell.parsed_by ~= step.algorithm then
      cell.parsed_by, cell.parsed = step.algorithm, step.algorithm.parse(cell.raw, KEYS[step.key])
      unreadable = unreadable + (cell.parsed and 0 or 1)
    end
    state = cell.parsed
  end
  return step.algorithm.settle(state, step.quota, now)
end

local function change(cell, step, state)
  if cell.foreign then
    return
  end
  cell.changed, cell.algorithm, cell.quota, cell.state = true, step.algorithm, step.quota, state
end

-- What the step asks of its key, with what the group's earlier steps take from the same key.
local function total_cost(steps, index)
  local total = steps[index].cost
  for earlier = 1, index - 1 do
    if steps[earlier].key == steps[index].key and steps[earlier].action == CHARGE then
      total = total + steps[earlier].cost
    end
  end
  return math.min(total, MAX_INTEGER)
end

local function verdict_of(step, state, cost)
  if step.action == RESET or step.cost == 0 then
    return ADMIT, 0
  elseif cost > step.quota.capacity then
    return NEVER, 0
  end
  local wait = step.algorithm.wait(state, step.quota, now, cost)
  return wait == 0 and ADMIT or DENY, wait
end

local function run_group(steps)
  local admitted = true
  local verdicts, waits = {}, {}
  for index, step in ipairs(steps) do
    local cell = cell_of(step)
    -- A shadow step never blocks: a key of another type is then counted as unreadable and left alone.
    if cell.foreign and not step.shadow then
      return { 1, index - 1 }
    elseif cell.foreign then
      unreadable = unreadable + 1
    end
    verdicts[index], waits[index] = verdict_of(step, settled(step, cell), total_cost(steps, index))
    admitted = admitted and (step.shadow or verdicts[index] == ADMIT)
  end

  -- Peeks speak of the state before the group.
  local reply, before = { 0 }, {}
  for index, step in ipairs(steps) do
    if step.action == PEEK then
      before[index] = settled(step, cell_of(step))
    end
  end
  for index, step in ipairs(steps) do
    local cell = cell_of(step)
    local state = before[index] or settled(step, cell)
    if step.action ~= PEEK and admitted and verdicts[index] == ADMIT then
      if step.action == RESET then
        change(cell, step, nil)
        state = settled(step, cell)
      else
        state = step.algorithm.charge(state, step.quota, step.cost)
        change(cell, step, state)
      end
    elseif step.action == CHARGE and state.mended then
      change(cell, step, state)
    end
    reply[#reply + 1] = verdicts[index]
    reply[#reply + 1] = step.algorithm.used(state, step.quota, now)
    reply[#reply + 1] = waits[index]
    reply[#reply + 1] = step.algorithm.wait(state, step.quota, now, step.quota.capacity)
  end
  return reply
end

local function run()
  floor = argument()
  local groups = argument()
  if groups > 128 or #KEYS > 256 then
    fail({ err = 'BADARG a call takes at most 128 groups and 256 keys' })
  end
  local replies = { 0 }
  for _ = 1, groups do
    local steps = {}
    for index = 1, argument() do
      steps[index] = read_step()
    end
    replies[#replies + 1] = run_group(steps)
  end
  for index, cell in pairs(cells) do
    if cell.changed and cell.state then
      cell.algorithm.save(KEYS[index], cell.state, cell.quota, now, floor)
    elseif cell.changed then
      clock.drop(KEYS[index])
    end
  end
  replies[1] = unreadable
  return replies
end

return finish(run)
