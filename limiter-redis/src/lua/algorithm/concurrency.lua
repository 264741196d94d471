-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. View: what is held.
--
-- The leases are a sorted set, so that one is found, moved or removed without reading the others. Each is a member, its id
-- (16 bytes), under its end (us). One that costs more than 1 has a second member, its id and `c`, under the cost below zero. The
-- lowest score has the head, whose score is one less than what all leases cost, below zero. Leases that have run out stay until
-- another one is written.
--
-- State: key, total (what all leases cost), known (the total of the head), count (of leases), gone (how many of them have run out),
-- held (what the others cost), singles (whether each costs 1), last (when the last one ends, once it is known).
-- What changes is written at once: by then the group has looked at all that it asks for.
local leases = { head = 'c\1', name = 5 }

function leases.read(key)
  local score = clock.read('ZSCORE', key, leases.head)
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
  local first = read('ZRANGE', key, 0, 0)
  local head = first and first[1]
  if head and string.find(head, '^c[%z\1-\31]$') then
    return head
  end
end

local function cost_member(id)
  return id .. 'c'
end

-- What these leases cost together.
local function cost_of(key, ids)
  local cost = 0
  for from = 1, #ids, 256 do
    local members = {}
    for index = from, math.min(from + 255, #ids) do
      members[#members + 1] = cost_member(ids[index])
    end
    for _, score in ipairs(call('ZMSCORE', key, unpack(members))) do
      cost = cost - (score or -1)
    end
  end
  return cost
end

local function ids_until(key, now)
  return call('ZRANGE', key, 1, now, 'BYSCORE')
end

function leases.parse(raw, key, now)
  local total = -1 - tonumber(string.sub(raw, 3))
  local count, gone = call('ZCOUNT', key, 1, '+inf'), call('ZCOUNT', key, 1, now)
  if total ~= math.floor(total) or total < count or total > MAX_INTEGER then
    return nil
  end
  local singles = count == total
  local held = total - (singles and gone or gone > 0 and cost_of(key, ids_until(key, now)) or 0)
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

-- So many leases that have not run out, from a place among these, counted from 0: id, end, id, end.
local function leases_from(state, place, count)
  -- From the end, since in front of the leases is what they cost.
  local from = state.gone + place - state.count
  return call('ZRANGE', state.key, from, math.min(from + count - 1, -1), 'WITHSCORES')
end

local function last_end(state)
  state.last = state.last or tonumber(call('ZRANGE', state.key, -1, -1, 'WITHSCORES')[2])
  return state.last
end

function leases.save(key, state, now, floor)
  if state.count == 0 then
    return clock.drop(key)
  elseif state.total ~= state.known then
    call('ZADD', key, -1 - state.total, leases.head)
  end
  clock.expire(key, time_to_live(floor, last_end(state), now))
end

-- A lease that has not run out: its cost, and when it ends. Nil if there is none of that id.
local function find(state, id, now)
  if not state then
    return nil
  end
  local scores = call('ZMSCORE', state.key, id, cost_member(id))
  local expires = tonumber(scores[1] or nil)
  if expires and expires > now then
    return { cost = scores[2] and -scores[2] or 1, expires = expires }
  end
end

-- Removes the leases that have run out.
local function forget_gone(state, now)
  if state.gone == 0 then
    return
  elseif not state.singles then
    for _, id in ipairs(ids_until(state.key, now)) do
      call('ZREM', state.key, cost_member(id))
    end
  end
  call('ZREMRANGEBYSCORE', state.key, 1, now)
  state.total, state.count, state.gone = state.held, state.count - state.gone, 0
end

-- One lease more, or less: what it costs.
local function count_lease(state, cost, by)
  state.count, state.total, state.held = state.count + by, state.total + by * cost, state.held + by * cost
end

local function acquire(state, id, cost, expires)
  if cost == 1 then
    call('ZADD', state.key, expires, id)
  else
    call('ZADD', state.key, expires, id, -cost, cost_member(id))
    state.singles = false
  end
  count_lease(state, cost, 1)
  if state.last or state.count == 1 then
    state.last = math.max(state.last or 0, expires)
  end
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
  mends = function()
    return false
  end,
  -- Leases are taken, not debits.
  debitable = function(_, _, _, life)
    return 0, life
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
    elseif state.singles then
      return leases_from(state, excess - 1, 1)[2] - now
    end
    local place, several = 0, 16
    while true do
      local found, costs = leases_from(state, place, several), {}
      for index = 1, #found, 2 do
        costs[#costs + 1] = cost_member(found[index])
      end
      for index, score in ipairs(call('ZMSCORE', state.key, unpack(costs))) do
        excess = excess + (score or -1)
        if excess <= 0 then
          return found[2 * index] - now
        end
      end
      place, several = place + several, 256
    end
  end,
  write = function(state, _, _, now, change, key)
    local does, id = change.does, change.lease
    if not state then
      -- What is there has run out.
      clock.drop(key)
      state = { key = key, total = 0, known = -1, count = 0, gone = 0, held = 0, singles = true }
    end
    forget_gone(state, now)
    if does == 'acquire' then
      acquire(state, id, change.amount, change.expires)
      return state, change.amount
    end
    local lease = find(state, id, now)
    if lease and does == 'renew' then
      if change.expires > lease.expires then
        call('ZADD', state.key, change.expires, id)
        state.last = state.last and math.max(state.last, change.expires)
      end
      return state, lease.cost
    elseif lease then
      call('ZREM', state.key, id, cost_member(id))
      count_lease(state, lease.cost, -1)
      state.last = nil
    end
    return state, 0
  end,
  counts_until = function(_, at)
    return at
  end,
}
