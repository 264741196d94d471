-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. View: what is held.
--
-- The leases are a sorted set, so that one is found, moved or removed without reading the others. Each is a member, its id
-- (16 bytes), under its end (us). One that costs more than 1 has a second member, its id and `c`, under the cost below zero. The
-- lowest score has the head, whose score is one less than what all leases cost, below zero. Leases that have run out stay until
-- another one is written.
--
-- State: key, total (what all leases cost), known (the total of the head), count (of leases), gone (how many of them have run out),
-- held (what the others cost), singles (whether each costs 1), last (when the last one ends, once it is known), is_moved
-- (whether the key's life changes). What changes is written at once: by then the group has looked at all that it asks for. The
-- first thing that is written for a new lease is refused by a Redis that is full; after it, a script may write all.
-- Numbers are given as text where they are constants or times, since Redis writes a number out with 17 digits.
local leases = { head = 'c\1', name = 5 }

-- The time of the call as text, for commands.
local now_text = string.format('%.0f', now)

local function cost_member(id)
  return id .. 'c'
end

function leases.read(key)
  local score = read('ZSCORE', key, leases.head)
  if score then
    return leases.head .. score
  elseif score == false and read_value(key) == false then
    return false
  end
  -- A set without this head is not this kind's.
  return nil
end

-- The head of leases of another version; nil if the key holds none.
function leases.read_other(key)
  local first = read('ZRANGE', key, '0', '0')
  local head = first and first[1]
  if head and string.find(head, '^c[%z\1-\31]$') then
    return head
  end
end

-- The ids of the leases that have run out, and what they cost together.
local function gone_in(key)
  local ids, cost = call('ZRANGE', key, '1', now_text, 'BYSCORE'), 0
  for from = 1, #ids, 256 do
    local members = {}
    for index = from, math.min(from + 255, #ids) do
      members[#members + 1] = cost_member(ids[index])
    end
    for _, score in ipairs(call('ZMSCORE', key, unpack(members))) do
      cost = cost - (score or -1)
    end
  end
  return ids, cost
end

function leases.parse(raw, key)
  local total = -1 - tonumber(string.sub(raw, 3))
  local count, gone = call('ZCOUNT', key, '1', '+inf'), call('ZCOUNT', key, '1', now_text)
  if total ~= math.floor(total) or total < count or total > MAX_INTEGER then
    return nil
  end
  local singles = count == total
  local held = total - gone
  if gone > 0 and not singles then
    held = total - select(2, gone_in(key))
  end
  return {
    key = key,
    total = total,
    known = total,
    count = count,
    gone = gone,
    held = held,
    singles = singles,
    last = nil,
  }
end

function leases.over(state)
  return state.count == state.gone
end

local function last_end(state)
  state.last = state.last or tonumber(call('ZRANGE', state.key, '-1', '-1', 'WITHSCORES')[2])
  return state.last
end

function leases.save(key, state, floor)
  if state.count == 0 then
    return call('DEL', key)
  elseif state.total ~= state.known then
    call('ZADD', key, -1 - state.total, leases.head)
  end
  -- The end of a lease that is not the last leaves the key's life as it is.
  if state.is_moved then
    call('PEXPIRE', key, time_to_live(floor, last_end(state)))
  end
end

-- A lease that has not run out: its cost, and when it ends. Nil if there is none of that id.
local function find(state, id, now)
  local scores = call('ZMSCORE', state.key, id, cost_member(id))
  local expires = scores[1] and tonumber(scores[1])
  if expires and expires > now then
    return { cost = scores[2] and -scores[2] or 1, expires = expires }
  end
end

-- Removes the leases that have run out, which are counted no more.
local function forget_gone(state)
  if not state.singles then
    for _, id in ipairs((gone_in(state.key))) do
      call('ZREM', state.key, cost_member(id))
    end
  end
  call('ZREMRANGEBYSCORE', state.key, '1', now_text)
end

-- That a lease ends at a moment, which is mostly after all others.
local function note_end(state, expires, text)
  if state.last then
    state.last = math.max(state.last, expires)
  elseif call('ZCOUNT', state.key, '(' .. text, '+inf') == 0 then
    state.last = expires
  end
end

local function acquire(state, id, cost, expires)
  state.count, state.total, state.held = state.count + 1, state.total + cost, state.held + cost
  state.known, state.is_moved = state.total, true
  local text = string.format('%.0f', expires)
  if cost == 1 then
    call('ZADD', state.key, -1 - state.total, leases.head, text, id)
    if not state.singles then
      -- It may have cost more before it ran out.
      call('ZREM', state.key, cost_member(id))
    end
  else
    call('ZADD', state.key, -1 - state.total, leases.head, text, id, -cost, cost_member(id))
    state.singles = false
  end
  note_end(state, expires, text)
end

local function renew(state, id, expires)
  local text = string.format('%.0f', expires)
  call('ZADD', state.key, text, id)
  note_end(state, expires, text)
  state.is_moved = true
end

local function release(state, id, lease)
  call('ZREM', state.key, id, cost_member(id))
  state.count, state.total, state.held = state.count - 1, state.total - lease.cost, state.held - lease.cost
  state.last = nil
  state.is_moved = state.count > 0 and lease.expires > last_end(state)
end

return {
  kind = leases,
  find = find,
  quota = function(limit)
    return limit >= 1 and { capacity = limit } or nil
  end,
  view = function(state)
    return state and state.held or 0
  end,
  used = function(held)
    return held
  end,
  -- The earliest moment at which enough leases have run out, if none is renewed.
  wait = function(state, held, quota, now, cost)
    local excess = held + cost - quota.capacity
    if excess <= 0 then
      return 0
    elseif excess >= held then
      return last_end(state) - now
    end
    -- Counted from the end, since in front of the leases is what they cost.
    local first = state.gone - state.count
    if state.singles then
      local rank = first + excess - 1
      return call('ZRANGE', state.key, rank, rank, 'WITHSCORES')[2] - now
    end
    local several = 16
    while true do
      local last, costs = math.min(first + several, 0) - 1, {}
      local found = call('ZRANGE', state.key, first, last, 'WITHSCORES')
      for index = 1, #found, 2 do
        costs[#costs + 1] = cost_member(found[index])
      end
      for index, score in ipairs(call('ZMSCORE', state.key, unpack(costs))) do
        excess = excess + (score or -1)
        if excess <= 0 then
          return found[2 * index] - now
        end
      end
      first, several = last + 1, 256
    end
  end,
  write = function(state, _, _, _, change, key)
    local does, id, lease = change.does, change.lease, change.held
    if not state then
      -- What is there has run out.
      call('SET', key, '', 'PX', '1')
      call('DEL', key)
      state = { key = key, total = 0, known = 0, count = 0, gone = 0, held = 0, singles = true }
    end
    local gone = state.gone
    state.total, state.count, state.gone = state.held, state.count - gone, 0
    local amount = 0
    if does == 'acquire' then
      amount = change.amount
      acquire(state, id, amount, change.expires)
    elseif does == 'renew' then
      amount = lease.cost
      renew(state, id, math.max(lease.expires, change.expires))
    elseif lease then
      release(state, id, lease)
    end
    if gone > 0 then
      forget_gone(state)
    end
    return state, amount
  end,
}
