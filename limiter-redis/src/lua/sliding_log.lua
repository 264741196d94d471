-- Sliding window log. Mirrors sliding_log.rs.
-- Quota: capacity, window (us). State: window, next, last (us), sum, and the entries as text, oldest
-- first, each `<at>:<number>:<cost>;`. The text is read from its front, as far as an answer needs it, and
-- grows at its end, so that a charge does not take all of a long log apart.
local sliding_log = { kind = {} }

function sliding_log.quota(limit, window)
  if math.min(limit, window) < 1 then
    return nil
  end
  return { capacity = limit, window = window }
end

-- The entry at a position of the text: its time, its cost, and where the next one begins. Nil at the end.
local function entry_at(entries, from)
  local at, cost, after = string.match(entries, '^(%d+):%d+:(%d+);()', from)
  at, cost = integer(at), integer(cost)
  if at and cost then
    return at, cost, after
  end
end

-- The newest entry's time; nil if there is none. Three numbers of 16 digits fit into 51 characters.
local function newest_at(entries)
  return integer((string.match(string.sub(entries, -51), '(%d+):%d+:%d+;$')))
end

-- Looks at both ends of the entries. One between them that is none counts until the log is over.
function sliding_log.kind.parse(raw)
  local window, number, last, sum, from = string.match(raw, '^l:(%d+):(%d+):(%d+):(%d+);()')
  window, number, last, sum = integer(window), integer(number), integer(last), integer(sum)
  if not (window and number and last and sum) or window == 0 then
    return nil
  end
  local entries = string.sub(raw, from)
  if entries ~= '' and not (entry_at(entries, 1) and newest_at(entries)) then
    return nil
  end
  return { window = window, next = number, last = last, sum = sum, entries = entries }
end

function sliding_log.kind.over(state, now)
  return now >= state.last + state.window
end

function sliding_log.kind.save(key, state, now, floor)
  local head = string.format(
    'l:%.0f:%.0f:%.0f:%.0f;', state.window, state.next, state.last, state.sum
  )
  clock.put(key, head .. state.entries, time_to_live(floor, state.last + state.window, now))
end

-- View: now (at least the newest entry's time), from (where the first entry that counts begins), sum.
function sliding_log.view(stored, quota, now)
  if not stored then
    return { now = now, from = 1, sum = 0 }
  end
  -- Under a changed window, what has left either of the two is gone.
  local window = math.min(quota.window, stored.window)
  now = math.max(now, stored.last)
  local from, sum = 1, stored.sum
  local at, cost, after = entry_at(stored.entries, from)
  while at and at + window <= now do
    from, sum = after, sum - cost
    at, cost, after = entry_at(stored.entries, from)
  end
  return { now = now, from = from, sum = math.max(0, sum) }
end

function sliding_log.mends(stored, view, quota)
  return stored.window ~= quota.window and view.sum > 0
end

function sliding_log.used(view)
  return view.sum
end

function sliding_log.wait(stored, view, quota, now, cost)
  local excess = view.sum + cost - quota.capacity
  if excess <= 0 then
    return 0
  end
  local at = stored.last
  if excess == view.sum then
    -- All of it.
    at = newest_at(stored.entries) or at
  else
    local from = view.from
    while excess > 0 do
      local entry, costs, after = entry_at(stored.entries, from)
      if not entry then
        break
      end
      at, excess, from = entry, excess - costs, after
    end
  end
  return math.max(1, at + quota.window - now)
end

-- The text before an entry, its cost, and the text after it. Nil if there is no such entry.
local function split_at(entries, mark)
  local begins = 1
  if string.sub(entries, 1, #mark) ~= mark then
    local found = string.find(entries, ';' .. mark, 1, true)
    begins = found and found + 1
  end
  if begins then
    local _, cost, after = entry_at(entries, begins)
    if cost then
      return string.sub(entries, 1, begins - 1), cost, string.sub(entries, after)
    end
  end
end

function sliding_log.write(stored, view, quota, _, change)
  local does, amount = change.does, change.amount
  local state = { window = quota.window, next = 0, last = 0, sum = view.sum, entries = '' }
  if stored then
    state.next, state.last = stored.next, stored.last
    state.entries = string.sub(stored.entries, view.from)
  end
  if does == 'charge' then
    local number = state.next
    local entry = string.format('%.0f:%.0f:%.0f;', view.now, number, amount)
    state.entries = state.entries .. entry
    state.next, state.last, state.sum = number + 1, view.now, state.sum + amount
    return state, amount, view.now, number
  elseif does == 'keep' then
    return state, 0
  end
  local mark = string.format('%.0f:%.0f:', change.at, change.number)
  local before, cost, after = split_at(state.entries, mark)
  if not before then
    return state, 0
  elseif does == 'give_back' then
    amount = math.min(amount, cost)
    cost, state.sum = cost - amount, math.max(0, state.sum - amount)
  else
    amount = math.min(amount, math.max(0, COUNT_BOUND - state.sum))
    cost, state.sum = cost + amount, state.sum + amount
  end
  local entry = cost > 0 and mark .. string.format('%.0f;', cost) or ''
  state.entries = before .. entry .. after
  return state, amount
end

function sliding_log.counts_until(quota, at)
  return moment(at + quota.window)
end
