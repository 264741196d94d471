-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. View: what is held.
--
-- The leases are a sorted set, so that one is found, moved or removed without reading the others. Each is a member, its id
-- (16 bytes), under its end (us). One that costs more than 1 has a second member, its id and `c`, under the cost below zero.
-- The head stands below zero too, under the end of the last lease; and so does the head and `x` (extra), if there was a lease
-- of more than 1 since the first: under one more than what all cost above 1. Leases that have run out stay until something is
-- written.
--
-- State: key, last (when the last lease ends), living (the leases that have not run out), held (what they cost), extra (what all
-- cost above 1; nil if all cost 1), gone (the ids of those that have run out, if there is an extra), is_moved (whether the key's
-- life changes), is_denied (what is gone is only to be forgotten). What changes is written at once: by then the group has looked
-- at all that it asks for. The first thing that is written for a new lease is refused by a Redis that is full; after it, a
-- script may write all. Numbers are given as text where they are constants or times, since Redis writes a number out with 17
-- digits.
local HEAD, EXTRA = 'c\1', 'c\1x'
-- How many members a command is given at once; and how many leases a denial looks at where their costs differ.
local SEVERAL, LOOKED_AT = 256, 24
local leases = { head = HEAD, name = 5 }

-- The time of the call as text, for commands.
local now_text = string.format('%.0f', now)

function leases.read(key)
  local scores = read('ZMSCORE', key, HEAD, EXTRA)
  if scores and scores[1] then
    return HEAD, scores
  end
  -- There is none; or it is a set without this head, and so not this kind's.
  return scores and read_value(key)
end

-- The head of leases of another version; nil if the key holds none.
function leases.read_other(key)
  local first = read('ZRANGE', key, '0', '0')
  return first and first[1] and string.match(first[1], '^(c[%z\1-\31])%a?$')
end

-- The second members of several ids.
local function cost_members(ids, from)
  local members = {}
  for index = from, math.min(from + SEVERAL - 1, #ids) do
    members[#members + 1] = ids[index] .. 'c'
  end
  return members
end

-- What the leases of these ids cost above 1.
local function extra_of(key, ids)
  local extra = 0
  for from = 1, #ids, SEVERAL do
    for _, score in ipairs(call('ZMSCORE', key, unpack(cost_members(ids, from)))) do
      extra = extra - (score or -1) - 1
    end
  end
  return extra
end

function leases.parse(_, key, scores)
  local last, extra, gone = -scores[1], nil, nil
  local living = call('ZCOUNT', key, '(' .. now_text, '+inf')
  local held = living
  if scores[2] and scores[2] ~= '-1' and living > 0 then
    extra, gone = -1 - scores[2], call('ZRANGE', key, '1', now_text, 'BYSCORE')
    held = living + extra - extra_of(key, gone)
  end
  local is_wrong = last % 1 ~= 0 or last < 1 or last > MAX_INTEGER or living > 0 and last <= now
  if is_wrong or held % 1 ~= 0 or held < living or held > MAX_INTEGER then
    return nil
  end
  return { key = key, last = last, living = living, held = held, extra = extra, gone = gone, is_moved = false }
end

function leases.over(state)
  return state.living == 0
end

-- A lease that has not run out: its cost, and when it ends. Nil if there is none of that id.
local function find(state, id, now)
  local expires, cost
  if state.extra then
    expires, cost = unpack(call('ZMSCORE', state.key, id, id .. 'c'))
  else
    expires = call('ZSCORE', state.key, id)
  end
  expires = tonumber(expires or 0)
  return expires > now and { cost = cost and -cost or 1, expires = expires } or nil
end

-- The lease under an id ends at a moment.
local function put(state, id, expires)
  local text = string.format('%.0f', expires)
  -- First what a full Redis may refuse: others go on with the state.
  if expires > state.last then
    call('ZADD', state.key, '-' .. text, HEAD, text, id)
    state.last = expires
  else
    call('ZADD', state.key, text, id)
  end
  state.is_moved = true
end

-- Forgets the leases that have run out.
local function forget_gone(state)
  if not state.extra then
    return call('ZREMRANGEBYSCORE', state.key, '1', now_text)
  elseif #state.gone > 0 then
    state.extra = state.extra - extra_of(state.key, state.gone)
    for from = 1, #state.gone, SEVERAL do
      call('ZREM', state.key, unpack(cost_members(state.gone, from)))
    end
    state.gone = {}
    call('ZADD', state.key, -1 - state.extra, EXTRA)
    call('ZREMRANGEBYSCORE', state.key, '1', now_text)
  end
end

function leases.save(key, state, floor)
  if state.living == 0 then
    call('DEL', key)
    return
  elseif state.is_denied then
    forget_gone(state)
  end
  if state.is_moved then
    call('PEXPIRE', key, time_to_live(floor, state.last))
  end
end

-- Writes down what the lease under an id costs above 1.
local function note_extra(state, id, extra)
  state.extra, state.gone = (state.extra or 0) + extra, state.gone or {}
  call('ZADD', state.key, -1 - extra, id .. 'c', -1 - state.extra, EXTRA)
end

local function remove(state, id, lease)
  state.living, state.held = state.living - 1, state.held - lease.cost
  -- The set without its last lease is none.
  if state.living == 0 then
    return
  end
  call('ZREM', state.key, id, id .. 'c')
  if lease.cost > 1 then
    state.extra = state.extra - (lease.cost - 1)
    call('ZADD', state.key, -1 - state.extra, EXTRA)
  end
  if lease.expires == state.last then
    state.last = moment(tonumber(call('ZRANGE', state.key, '-1', '-1', 'WITHSCORES')[2]))
    state.is_moved = true
    call('ZADD', state.key, -state.last, HEAD)
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
  used = function(held)
    return held
  end,
  -- Where costs differ, what has run out costs time at each look.
  mends = function(state)
    return state.gone and #state.gone > 0
  end,
  -- Until enough leases have run out, if none is renewed: the earliest moment, or a later one, where costs differ and more leases
  -- have to end than are looked at. Then each of the others counts for one unit.
  wait = function(state, held, quota, now, cost)
    local excess = held + cost - quota.capacity
    if excess <= 0 then
      return 0
    elseif excess >= held then
      return state.last - now
    end
    -- Counted from the end, where the living are.
    local first = -state.living
    if held > state.living then
      local found = call('ZRANGE', state.key, first, math.min(first + LOOKED_AT, 0) - 1, 'WITHSCORES')
      local members = {}
      for index = 1, #found, 2 do
        members[#members + 1] = found[index] .. 'c'
      end
      for index, score in ipairs(call('ZMSCORE', state.key, unpack(members))) do
        excess = excess + (score or -1)
        if excess <= 0 then
          return found[2 * index] - now
        end
      end
      first = first + #members
    end
    local rank = math.min(first + excess, 0) - 1
    return call('ZRANGE', state.key, rank, rank, 'WITHSCORES')[2] - now
  end,
  write = function(state, _, _, _, change, key)
    local id, lease, amount = change.lease, change.held, 0
    if not state then
      -- What is there has run out.
      call('SET', key, '', 'PX', '1')
      call('DEL', key)
      state = { key = key, last = 0, living = 0, held = 0 }
    end
    if change.does == 'acquire' then
      amount = change.amount
      put(state, id, change.expires)
      forget_gone(state)
      if amount > 1 then
        note_extra(state, id, amount - 1)
      end
      state.living, state.held = state.living + 1, state.held + amount
    elseif change.does == 'renew' then
      amount = lease.cost
      put(state, id, math.max(lease.expires, change.expires))
      forget_gone(state)
    elseif change.does == 'keep' then
      -- Once all else is written: it would let a full Redis take a lease of another step.
      state.is_denied = true
    else
      forget_gone(state)
      if lease then
        remove(state, id, lease)
      end
    end
    return state, amount
  end,
}
