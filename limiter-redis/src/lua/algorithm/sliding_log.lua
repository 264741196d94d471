-- Sliding window log. Mirrors sliding_log.rs.
-- Quota: capacity, window (us). View: now (at least when the newest charge was made), from (the index of the first entry that
-- counts), gone (the total before it), sum.
--
-- A value is a head, and the entries, oldest first, each 21 bytes: date (us), number, total (what it and all before it cost). All
-- three ascend, so that an entry is found by halving; and only the part of a value is read or written that a call needs.
-- Entries that no longer count stay at the front until they are the larger part.
--
-- State: window, next (the next entry's number), last (when the newest charge was made), dated (the latest date that was given),
-- newest (the last entry's date), first (index of the first entry that counted when the state was written), gone (the total before
-- it), count (of all entries), total (the last entry's). And of the value: key, kept (how many entries it holds as they are
-- now; 0 if it is to be written whole), tail (the entries after these), parts (what was read of it).
local log = { head = 'l\1', name = 4 }

local LOG_HEAD, LOG_HEAD_BYTES = '>I7I7I7I7I7I7I7I7I7', 65
local LOG_ENTRY, LOG_ENTRY_BYTES = '>I7I7I7', 21
local LOG_DATE, LOG_NUMBER, LOG_TOTAL = 1, 2, 3
-- How many entries are read at once; how many have their totals changed at once, and an entry's total behind the rest of it.
local LOG_PART, SHIFTED_AT_ONCE, SHIFTED = 16, 32, 'c14I7'

function log.read(key)
  local head = read('GETRANGE', key, '0', '64')
  return head ~= '' and head
end

function log.parse(raw, key)
  if #raw < LOG_HEAD_BYTES then
    return nil
  end
  local window, next, last, dated, newest, first, gone, count, total = struct.unpack(LOG_HEAD, raw, 3)
  if
    window == 0
    or first > count
    or gone > total
    -- Each entry costs something.
    or (count == first) ~= (total == gone)
    or not are_exact(window, next, last, dated, newest, count, total)
    or call('STRLEN', key) < LOG_HEAD_BYTES + count * LOG_ENTRY_BYTES
  then
    return nil
  end
  return {
    window = window,
    next = next,
    last = last,
    dated = dated,
    newest = newest,
    first = first,
    gone = gone,
    count = count,
    total = total,
    key = key,
    kept = count,
    tail = '',
    parts = {},
  }
end

function log.over(state)
  return now >= state.dated + state.window
end

-- The bytes of the entries from one index up to another, as the value has them.
local function entries_in(state, from, to)
  if from >= to then
    return ''
  end
  return call('GETRANGE', state.key, LOG_HEAD_BYTES + from * LOG_ENTRY_BYTES, LOG_HEAD_BYTES + to * LOG_ENTRY_BYTES - 1)
end

-- The entry at an index, from 0: its date, number and total.
local function entry_at(state, index)
  if index >= state.kept then
    return struct.unpack(LOG_ENTRY, state.tail, (index - state.kept) * LOG_ENTRY_BYTES + 1)
  end
  local begins = index - index % LOG_PART
  local part = state.parts[begins]
  if not part then
    part = entries_in(state, begins, math.min(begins + LOG_PART, state.kept))
    state.parts[begins] = part
  end
  return struct.unpack(LOG_ENTRY, part, (index - begins) * LOG_ENTRY_BYTES + 1)
end

-- The first index from `low` on whose entry's field is at least `least`; the number of entries if there is none. It is sought
-- from `guess` on in steps that grow, then by halving.
local function search(state, field, least, low, guess)
  local high, step = state.count, 1
  while low < high do
    local is_reached = select(field, entry_at(state, guess)) >= least
    if is_reached then
      high = guess
    else
      low = guess + 1
    end
    if step < high - low then
      guess, step = is_reached and high - step or low + step - 1, step * 4
    else
      guess = math.floor((low + high) / 2)
    end
  end
  return low
end

function log.save(key, state, floor)
  local first, gone, count = state.first, state.gone, state.count
  local ttl = time_to_live(floor, state.dated + state.window)
  local entries
  if state.is_new or first > 64 and first > count / 2 then
    -- Written whole, without those that no longer count.
    entries = entries_in(state, first, state.kept)
      .. string.sub(state.tail, math.max(0, first - state.kept) * LOG_ENTRY_BYTES + 1)
    first, count = 0, count - first
  end
  local numbers = struct.pack(
    LOG_HEAD,
    state.window,
    state.next,
    state.last,
    state.dated,
    state.newest,
    first,
    gone,
    count,
    state.total
  )
  if entries then
    return call('SET', key, log.head .. numbers .. entries, 'PX', ttl)
  end
  call('SETRANGE', key, '0', log.head .. numbers)
  if state.tail ~= '' then
    call('SETRANGE', key, LOG_HEAD_BYTES + state.kept * LOG_ENTRY_BYTES, state.tail)
  end
  call('PEXPIRE', key, ttl)
end

-- Takes the entries from an index on into the tail, their totals higher by so much, but for the first one if it is dropped.
local function shift(state, from, by, is_dropped)
  local kept = math.min(from, state.kept)
  local bytes = entries_in(state, kept, state.kept) .. state.tail
  local begins = (from - kept) * LOG_ENTRY_BYTES
  local entries = { string.sub(bytes, 1, begins) }
  for place = begins + (is_dropped and LOG_ENTRY_BYTES or 0) + 1, #bytes, SHIFTED_AT_ONCE * LOG_ENTRY_BYTES do
    local several = math.min(SHIFTED_AT_ONCE, (#bytes - place + 1) / LOG_ENTRY_BYTES)
    local form = '>' .. string.rep(SHIFTED, several)
    local values = { struct.unpack(form, bytes, place) }
    for index = 2, 2 * several, 2 do
      values[index] = values[index] + by
    end
    entries[#entries + 1] = struct.pack(form, unpack(values, 1, 2 * several))
  end
  state.kept, state.tail, state.total = kept, table.concat(entries), state.total + by
  if is_dropped then
    state.count = state.count - 1
  end
end

-- Totals are counted from the first entry that counts, so that they stay exact.
local function shift_to_zero(state)
  shift(state, state.first, -state.gone)
  state.gone = 0
end

local function charge(state, view, life, amount)
  if state.total + amount > MAX_INTEGER then
    shift_to_zero(state)
  end
  local number, at = state.next, moment(view.now + life)
  if state.count > state.first then
    -- No earlier than those before it, so that they leave in their order.
    at = math.max(at, state.newest)
  end
  state.next, state.count, state.total = number + 1, state.count + 1, state.total + amount
  state.tail = state.tail .. struct.pack(LOG_ENTRY, at, number, state.total)
  state.last, state.newest, state.dated = view.now, at, math.max(state.dated, at)
  return state, amount, at, number
end

-- What gives back, or takes more, of the entry of a mark. Made when it is needed, as few calls do.
local function adjuster()
  -- The index of the entry of a mark; nil if there is no such entry that counts.
  local function find(state, view, mark)
    local index = search(
      state,
      LOG_NUMBER,
      mark.number,
      view.from,
      math.max(view.from, math.min(state.count - 1, state.count - (state.next - mark.number)))
    )
    if index < state.count then
      local date, number = entry_at(state, index)
      return number == mark.number and date == mark.at and index or nil
    end
  end

  -- How much of the entry of a mark is given back, or taken more, and whether nothing of it is left.
  local function adjustment(state, view, index, change)
    if change.does == 'overrun' then
      return math.min(change.amount, math.max(0, COUNT_BOUND - view.sum)), false
    end
    local before = view.gone
    if index > view.from then
      before = select(LOG_TOTAL, entry_at(state, index - 1))
    end
    local cost = select(LOG_TOTAL, entry_at(state, index)) - before
    return math.min(change.amount, cost), change.amount >= cost
  end

  return function(state, view, quota, change)
    local index = find(state, view, change)
    local amount, is_dropped = 0, false
    if index then
      amount, is_dropped = adjustment(state, view, index, change)
    end
    if amount == 0 then
      return state, 0
    end
    state.window, state.first, state.gone = quota.window, view.from, view.gone
    if change.does == 'give_back' then
      shift(state, index, -amount, is_dropped)
      if index == state.count and index > state.first then
        state.newest = entry_at(state, index - 1)
      end
      return state, amount
    elseif state.total + amount > MAX_INTEGER then
      shift_to_zero(state)
    end
    shift(state, index, amount)
    return state, amount
  end
end

local function new(quota, key)
  return {
    window = quota.window,
    next = 0,
    last = 0,
    dated = 0,
    newest = 0,
    first = 0,
    gone = 0,
    count = 0,
    total = 0,
    key = key,
    is_new = true,
    kept = 0,
    tail = '',
    parts = {},
  }
end

return {
  kind = log,
  quota = function(limit, window)
    if math.min(limit, window) < 1 then
      return nil
    end
    return { capacity = limit, window = window }
  end,
  view = function(stored, quota, now)
    if not stored then
      return { now = now, from = 0, gone = 0, sum = 0 }
    end
    -- Under a changed window, what has left either of the two is gone.
    local window = math.min(quota.window, stored.window)
    now = math.max(now, stored.last)
    local from, gone = search(stored, LOG_DATE, now - window + 1, stored.first, stored.first), stored.gone
    if from > stored.first then
      gone = select(LOG_TOTAL, entry_at(stored, from - 1))
    end
    return { now = now, from = from, gone = gone, sum = stored.total - gone }
  end,
  mends = function(stored, view, quota)
    return stored.window ~= quota.window and view.sum > 0
  end,
  debitable = function(view, quota, _, life)
    return math.max(0, quota.capacity - view.sum), life
  end,
  used = function(view)
    return view.sum
  end,
  wait = function(stored, view, quota, now, cost)
    local excess = view.sum + cost - quota.capacity
    if excess <= 0 then
      return 0
    end
    local at = stored.count > stored.first and stored.newest or stored.last
    if excess < view.sum then
      -- Not all of it.
      local count = stored.count - view.from
      local guess = view.from + div_ceil(excess * count, view.sum) - 1
      local index = search(stored, LOG_TOTAL, view.gone + excess, view.from, guess)
      at = entry_at(stored, math.min(index, stored.count - 1))
    end
    return math.max(1, at + quota.window - now)
  end,
  write = function(stored, view, quota, _, change, key)
    local does = change.does
    if does == 'give_back' or does == 'overrun' then
      if not stored then
        return nil, 0
      end
      return adjuster()(stored, view, quota, change)
    end
    local state = stored or new(quota, key)
    state.window, state.first, state.gone = quota.window, view.from, view.gone
    if does == 'keep' then
      return state, 0
    end
    return charge(state, view, does == 'debit' and change.life or 0, change.amount)
  end,
  counts_until = function(quota, at)
    return moment(at + quota.window)
  end,
}
