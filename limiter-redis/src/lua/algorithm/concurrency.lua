-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. State: held (what the living leases cost together), last (when the last one ends), and the leases, those
-- that end first at the front, each 30 bytes: id (16 bytes), cost, expires (us). A call has one time: what has run out is dropped
-- when it is read.
local concurrency = { kind = new_kind('c', 5) }

local LEASES_HEAD, LEASE = numbers(1), '>c16I7I7'
local LEASES_HEAD_BYTES, LEASE_BYTES = 9, 30

function concurrency.quota(limit)
  return limit >= 1 and { capacity = limit } or nil
end

-- The lease at an index, from 0: its id, its cost, and when it ends.
local function lease_at(leases, index)
  return struct.unpack(LEASE, leases, index * LEASE_BYTES + 1)
end

local function leases_in(leases)
  return #leases / LEASE_BYTES
end

-- A state of these leases.
local function holding(leases, held)
  local count, last = leases_in(leases), 0
  if count > 0 then
    local _, _, expires = lease_at(leases, count - 1)
    last = expires
  end
  return { leases = leases, held = held, last = last }
end

function concurrency.kind.parse(raw, _, now)
  local bytes = #raw - LEASES_HEAD_BYTES
  if bytes < 0 or bytes % LEASE_BYTES ~= 0 then
    return nil
  end
  local held = struct.unpack(LEASES_HEAD, raw, 3)
  local leases, gone, count = string.sub(raw, LEASES_HEAD_BYTES + 1), 0, bytes / LEASE_BYTES
  while gone < count do
    local _, cost, expires = lease_at(leases, gone)
    if expires > now then
      break
    end
    gone, held = gone + 1, held - cost
  end
  return holding(string.sub(leases, gone * LEASE_BYTES + 1), math.max(0, moment(held)))
end

function concurrency.kind.over(state)
  return state.leases == ''
end

function concurrency.kind.save(key, state, now, floor)
  if state.leases == '' then
    clock.drop(key)
  else
    local value = concurrency.kind.head .. struct.pack(LEASES_HEAD, state.held) .. state.leases
    clock.put(key, value, time_to_live(floor, state.last, now))
  end
end

-- The index of the lease of an id, its cost, and when it ends. Nil if there is none.
function concurrency.find(state, id)
  local leases = state and state.leases or ''
  local begins = string.find(leases, id, 1, true)
  -- The same bytes may stand across two leases.
  while begins and (begins - 1) % LEASE_BYTES ~= 0 do
    begins = string.find(leases, id, begins + 1, true)
  end
  if begins then
    local index = (begins - 1) / LEASE_BYTES
    local _, cost, expires = lease_at(leases, index)
    return { index = index, cost = cost, expires = expires }
  end
end

-- The leases with one more, in the order in which they end.
local function with_lease(leases, id, cost, expires)
  local low, high = 0, leases_in(leases)
  while low < high do
    -- The last first: what is new mostly ends last.
    local middle = high - low > 8 and low == 0 and high == leases_in(leases) and high - 1
      or math.floor((low + high) / 2)
    local _, _, ends = lease_at(leases, middle)
    if ends <= expires then
      low = middle + 1
    else
      high = middle
    end
  end
  return string.sub(leases, 1, low * LEASE_BYTES)
    .. struct.pack(LEASE, id, cost, expires)
    .. string.sub(leases, low * LEASE_BYTES + 1)
end

-- View: held.
function concurrency.view(stored)
  return { held = stored and stored.held or 0 }
end

function concurrency.mends()
  return false
end

-- Leases are taken, not debits.
function concurrency.debitable(_, _, _, life)
  return 0, life
end

function concurrency.used(view)
  return view.held
end

-- The earliest moment at which enough leases have run out, if none is renewed.
function concurrency.wait(stored, view, quota, now, cost)
  local excess = view.held + cost - quota.capacity
  if excess <= 0 then
    return 0
  elseif excess >= view.held then
    return stored.last - now
  end
  local ends, index, count = now, 0, leases_in(stored.leases)
  if view.held == count then
    -- Each costs 1: those before need not be read.
    index, excess = excess - 1, 1
  end
  while excess > 0 and index < count do
    local _, costs, expires = lease_at(stored.leases, index)
    ends, excess, index = expires, excess - costs, index + 1
  end
  return ends - now
end

function concurrency.write(stored, _, _, _, change)
  local leases, held = stored and stored.leases or '', stored and stored.held or 0
  local id, cost, expires = change.lease, change.amount, change.expires
  local lease = concurrency.find(stored, id)
  if lease then
    leases = string.sub(leases, 1, lease.index * LEASE_BYTES)
      .. string.sub(leases, (lease.index + 1) * LEASE_BYTES + 1)
    held = math.max(0, held - lease.cost)
    cost, expires = lease.cost, math.max(lease.expires, expires or 0)
  end
  if change.does == 'release' or not cost then
    return holding(leases, held), 0
  end
  return holding(with_lease(leases, id, cost, expires), held + cost), cost
end

function concurrency.counts_until(_, at)
  return at
end
