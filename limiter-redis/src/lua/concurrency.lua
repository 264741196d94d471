-- Concurrency: so much is held at once, by leases that end by themselves. Mirrors concurrency.rs.
-- Quota: capacity. State: the living leases as text, each `<id>:<cost>:<expires>;`, held (their costs) and
-- last (when the last one ends). There may be a thousand, so they are searched as text and taken apart only
-- for a denial. A call has one time: what has run out is dropped when it is read.
local concurrency = { kind = {} }

function concurrency.quota(limit)
  return limit >= 1 and { capacity = limit } or nil
end

-- The state of a text; nil if that is none.
local function read_leases(text, now)
  local held, last = 0, 0
  -- Where the next lease begins, and from where on the text is not yet among the parts to keep.
  local from, unkept, parts = 1, 1, {}
  -- Anchored, so that a foreign text costs no more than its length.
  while from <= #text do
    local ends, cost, expires, after = string.match(text, '^%x+():(%d+):(%d+);()', from)
    cost, expires = tonumber(cost), tonumber(expires)
    if not ends or ends - from ~= 32 or cost > MAX_INTEGER or expires > MAX_INTEGER then
      return nil
    end
    if expires > now then
      held, last = math.min(held + cost, MAX_INTEGER), math.max(last, expires)
    else
      parts[#parts + 1] = string.sub(text, unkept, from - 1)
      unkept = after
    end
    from = after
  end
  parts[#parts + 1] = string.sub(text, unkept)
  return { leases = table.concat(parts), held = held, last = last }
end

function concurrency.kind.parse(raw, _, now)
  return string.sub(raw, 1, 2) == 'c:' and read_leases(string.sub(raw, 3), now) or nil
end

function concurrency.kind.over(state)
  return state.leases == ''
end

function concurrency.kind.save(key, state, now, floor)
  if state.leases == '' then
    clock.drop(key)
  else
    clock.put(key, 'c:' .. state.leases, time_to_live(floor, state.last, now))
  end
end

-- The lease of an id: its cost, when it ends, and where its text begins and ends. Nil if there is none.
local function find_lease(state, id)
  -- Nothing else in the text has 32 digits before a colon.
  local begins, colon = string.find(state and state.leases or '', id .. ':', 1, true)
  if begins then
    local cost, expires, after = string.match(state.leases, '^(%d+):(%d+);()', colon + 1)
    return { cost = tonumber(cost), expires = tonumber(expires), begins = begins, after = after }
  end
end

-- View: held.
function concurrency.view(stored)
  return { held = stored and stored.held or 0 }
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
    return stored.last - now
  end
  local leases = {}
  for costs, expires in string.gmatch(stored.leases, ':(%d+):(%d+);') do
    leases[#leases + 1] = { cost = tonumber(costs), expires = tonumber(expires) }
  end
  table.sort(leases, function(one, other)
    return one.expires < other.expires
  end)
  local ends = now
  for _, lease in ipairs(leases) do
    ends, excess = lease.expires, excess - lease.cost
    if excess <= 0 then
      break
    end
  end
  return ends - now
end

function concurrency.write(stored, _, _, now, change)
  local state = stored or { leases = '', held = 0, last = 0 }
  local id, cost, expires = change.lease, change.amount, change.expires
  local lease = find_lease(state, id)
  if lease then
    local others = string.sub(state.leases, 1, lease.begins - 1)
      .. string.sub(state.leases, lease.after)
    if change.does == 'release' and lease.expires == state.last then
      state = read_leases(others, now)
    else
      state = { leases = others, held = state.held - lease.cost, last = state.last }
    end
    cost, expires = lease.cost, math.max(lease.expires, expires or 0)
  end
  if change.does == 'release' or not cost then
    return state, 0
  end
  return {
    leases = state.leases .. string.format('%s:%.0f:%.0f;', id, cost, expires),
    held = state.held + cost,
    last = math.max(state.last, expires),
  }, cost
end

function concurrency.counts_until(_, at)
  return at
end
