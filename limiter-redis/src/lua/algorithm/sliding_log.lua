-- Sliding window log. Mirrors sliding_log.rs.
-- Quota: capacity, window (us). State: window, next, last, dated (us), sum, and the entries, oldest first, each 21 bytes: date
-- (us), number, cost. They are read from the front, as far as an answer needs it, and grow at the end, so that a charge does
-- not take all of a long log apart.
local sliding_log = { kind = new_kind('l', 4) }

local LOG_HEAD, LOG_ENTRY = numbers(5), numbers(3)
local LOG_HEAD_BYTES, LOG_ENTRY_BYTES = 37, 21

function sliding_log.quota(limit, window)
  if math.min(limit, window) < 1 then
    return nil
  end
  return { capacity = limit, window = window }
end

local function log_length(entries)
  return #entries / LOG_ENTRY_BYTES
end

-- The entry at an index, from 0: its date, number and cost.
local function log_entry(entries, index)
  return struct.unpack(LOG_ENTRY, entries, index * LOG_ENTRY_BYTES + 1)
end

-- The newest entry's date; nil if there is none.
local function newest_at(entries)
  local length = log_length(entries)
  return length > 0 and (log_entry(entries, length - 1)) or nil
end

function sliding_log.kind.parse(raw)
  local bytes = #raw - LOG_HEAD_BYTES
  if bytes < 0 or bytes % LOG_ENTRY_BYTES ~= 0 then
    return nil
  end
  local window, number, last, dated, sum = struct.unpack(LOG_HEAD, raw, 3)
  if window == 0 or not are_exact(window, number, last, dated, sum) then
    return nil
  end
  local entries = string.sub(raw, LOG_HEAD_BYTES + 1)
  return {
    window = window,
    next = number,
    last = last,
    dated = dated,
    sum = sum,
    entries = entries,
  }
end

function sliding_log.kind.over(state, now)
  return now >= state.dated + state.window
end

function sliding_log.kind.save(key, state, now, floor)
  local head = sliding_log.kind.head
    .. struct.pack(LOG_HEAD, state.window, state.next, state.last, state.dated, state.sum)
  local fresh_at = state.dated + state.window
  clock.put(key, head .. state.entries, time_to_live(floor, fresh_at, now))
end

-- View: now (at least when the newest charge was made), from (the index of the first entry that counts), sum.
function sliding_log.view(stored, quota, now)
  if not stored then
    return { now = now, from = 0, sum = 0 }
  end
  -- Under a changed window, what has left either of the two is gone.
  local window = math.min(quota.window, stored.window)
  now = math.max(now, stored.last)
  local from, sum, length = 0, stored.sum, log_length(stored.entries)
  while from < length do
    local at, _, cost = log_entry(stored.entries, from)
    if at + window > now then
      break
    end
    from, sum = from + 1, sum - cost
  end
  return { now = now, from = from, sum = math.max(0, sum) }
end

function sliding_log.mends(stored, view, quota)
  return stored.window ~= quota.window and view.sum > 0
end

function sliding_log.debitable(view, quota, _, life)
  return math.max(0, quota.capacity - view.sum), life
end

function sliding_log.used(view)
  return view.sum
end

function sliding_log.wait(stored, view, quota, now, cost)
  local excess = view.sum + cost - quota.capacity
  if excess <= 0 then
    return 0
  end
  local at = newest_at(stored.entries) or stored.last
  if excess < view.sum then
    -- Not all of it.
    local index, length = view.from, log_length(stored.entries)
    if view.sum == length - index then
      -- Each costs 1: those before need not be read.
      index, excess = index + excess - 1, 1
    end
    while excess > 0 and index < length do
      local entry, _, costs = log_entry(stored.entries, index)
      at, excess, index = entry, excess - costs, index + 1
    end
  end
  return math.max(1, at + quota.window - now)
end

-- The index of the entry of a mark; nil if there is no such entry. Numbers ascend.
local function find_entry(entries, at, number)
  local low, high = 0, log_length(entries)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local date, found = log_entry(entries, middle)
    if found == number then
      return date == at and middle or nil
    elseif found < number then
      low = middle + 1
    else
      high = middle
    end
  end
end

function sliding_log.write(stored, view, quota, _, change)
  local does, amount = change.does, change.amount
  local state = {
    window = quota.window,
    next = 0,
    last = 0,
    dated = 0,
    sum = view.sum,
    entries = '',
  }
  if stored then
    state.next, state.last, state.dated = stored.next, stored.last, stored.dated
    state.entries = string.sub(stored.entries, view.from * LOG_ENTRY_BYTES + 1)
  end
  if does == 'charge' or does == 'debit' then
    local number = state.next
    local at = moment(view.now + (change.life or 0))
    -- No earlier than those before it, so that they leave in their order.
    at = math.max(at, newest_at(state.entries) or 0)
    state.entries = state.entries .. struct.pack(LOG_ENTRY, at, number, amount)
    state.next, state.last, state.sum = number + 1, view.now, state.sum + amount
    state.dated = math.max(state.dated, at)
    return state, amount, at, number
  elseif does == 'keep' then
    return state, 0
  end
  local index = find_entry(state.entries, change.at, change.number)
  if not index then
    return state, 0
  end
  local _, _, cost = log_entry(state.entries, index)
  if does == 'give_back' then
    amount = math.min(amount, cost)
    cost, state.sum = cost - amount, math.max(0, state.sum - amount)
  else
    amount = math.min(amount, math.max(0, COUNT_BOUND - state.sum))
    cost, state.sum = cost + amount, state.sum + amount
  end
  local entry = cost > 0 and struct.pack(LOG_ENTRY, change.at, change.number, cost) or ''
  state.entries = string.sub(state.entries, 1, index * LOG_ENTRY_BYTES)
    .. entry
    .. string.sub(state.entries, (index + 1) * LOG_ENTRY_BYTES + 1)
  return state, amount
end

function sliding_log.counts_until(quota, at)
  return moment(at + quota.window)
end
