-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. State: a list of leases {id, cost, expires (us)}.
local concurrency = { kind = {} }

function concurrency.quota(limit)
  return limit >= 1 and { capacity = limit } or nil
end

function concurrency.kind.parse(raw)
  if string.sub(raw, 1, 2) ~= 'c:' then
    return nil
  end
  local leases, from = {}, 3
  while from <= #raw do
    local id, cost, expires, after = string.match(raw, '^(%x+):(%d+):(%d+);()', from)
    id, cost, expires = digest(id), integer(cost), integer(expires)
    if not (id and cost and expires) then
      return nil
    end
    leases[#leases + 1] = { id = id, cost = cost, expires = expires }
    from = after
  end
  return leases
end

-- When the last lease ends; 0 if there is none.
local function last_end(leases)
  local last = 0
  for _, lease in ipairs(leases) do
    last = math.max(last, lease.expires)
  end
  return last
end

function concurrency.kind.over(leases, now)
  return last_end(leases) <= now
end

function concurrency.kind.save(key, leases, now, floor)
  if #leases == 0 then
    return clock.drop(key)
  end
  local parts = {}
  for index, lease in ipairs(leases) do
    parts[index] = string.format('%s:%.0f:%.0f;', lease.id, lease.cost, lease.expires)
  end
  local text = 'c:' .. table.concat(parts)
  clock.put(key, text, time_to_live(floor, last_end(leases), now))
end

local function live_leases(leases, now)
  local live = {}
  for _, lease in ipairs(leases or {}) do
    if lease.expires > now then
      live[#live + 1] = lease
    end
  end
  return live
end

-- The live lease of an id, and its index.
local function find_lease(leases, id, now)
  for index, lease in ipairs(leases or {}) do
    if lease.id == id and lease.expires > now then
      return lease, index
    end
  end
end

-- View: held.
function concurrency.view(stored, _, now)
  local held = 0
  for _, lease in ipairs(live_leases(stored, now)) do
    held = math.min(held + lease.cost, MAX_INTEGER)
  end
  return { held = held }
end

function concurrency.mends()
  return false
end

function concurrency.used(view)
  return view.held
end

-- The earliest moment at which enough leases have run out, if none is renewed.
function concurrency.wait(stored, view, quota, now, cost)
  local excess = view.held + cost - quota.capacity
  if excess <= 0 then
    return 0
  elseif excess == view.held then
    return last_end(stored) - now
  end
  local live = live_leases(stored, now)
  table.sort(live, function(one, other)
    return one.expires < other.expires
  end)
  local ends = now
  for _, lease in ipairs(live) do
    ends, excess = lease.expires, excess - lease.cost
    if excess <= 0 then
      break
    end
  end
  return ends - now
end

function concurrency.write(stored, _, _, now, change)
  local leases, does = live_leases(stored, now), change.does
  local lease, index = find_lease(leases, change.lease, now)
  if does == 'acquire' then
    leases[#leases + 1] = { id = change.lease, cost = change.amount, expires = change.expires }
    return leases, change.amount
  elseif does == 'renew' and lease then
    -- A copy: the stored one may be asked for again.
    leases[index] = {
      id = lease.id,
      cost = lease.cost,
      expires = math.max(lease.expires, change.expires),
    }
    return leases, lease.cost
  elseif does == 'release' and lease then
    table.remove(leases, index)
  end
  return leases, 0
end

function concurrency.counts_until(_, at)
  return at
end
