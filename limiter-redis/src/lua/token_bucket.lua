-- Token bucket, exact in integers. Mirrors token_bucket.rs.
-- Quota: capacity, gain and token (fractions), unit (us), full.
-- State: token, debt (fractions), at, full_at (us), charged (tokens).
local token_bucket = { kind = {} }

-- Every debt is paid off sooner (us).
local LONGEST = 4503599627370496 -- 2^52

function token_bucket.quota(capacity, gain, token, unit)
  if math.min(capacity, gain, token, unit) < 1 then
    return nil
  end
  local full = capacity * token
  -- The largest debt whose numbers and times are exact; nothing less of it may be forgotten.
  local in_time = gain * (math.floor(LONGEST / unit) - 1)
  local largest = math.max(math.min(MAX_INTEGER - full - gain, in_time), 2 * full)
  return {
    capacity = capacity,
    gain = gain,
    token = token,
    unit = unit,
    full = full,
    largest = largest,
  }
end

function token_bucket.kind.parse(raw)
  local token, debt, at, full_at, charged =
    string.match(raw, '^b:(%d+):(%d+):(%d+):(%d+):(%d+)$')
  token, debt, at, full_at = integer(token), integer(debt), integer(at), integer(full_at)
  charged = integer(charged)
  if not (token and debt and at and full_at and charged) or token == 0 then
    return nil
  end
  return { token = token, debt = debt, at = at, full_at = full_at, charged = charged }
end

-- Paid off under the quota that wrote it: the key may have expired, so it says nothing now.
function token_bucket.kind.over(state, now)
  return now >= state.full_at
end

function token_bucket.kind.save(key, state, now, floor)
  local text = string.format(
    'b:%.0f:%.0f:%.0f:%.0f:%.0f',
    state.token,
    state.debt,
    state.at,
    state.full_at,
    state.charged
  )
  clock.put(key, text, time_to_live(floor, state.full_at, now))
end

-- Units in which `debt` is paid off. At most `largest`, so that no sum passes 2^53.
local function units_until_paid(quota, debt)
  return div_ceil(debt, quota.gain)
end

local function bucket(quota, debt, at, charged)
  local full_at = moment(at + units_until_paid(quota, debt) * quota.unit)
  return { token = quota.token, debt = debt, at = at, full_at = full_at, charged = charged }
end

-- At the end of its range it begins anew, below every receipt.
local function count(charged, cost)
  if charged > MAX_INTEGER - cost then
    return cost
  end
  return charged + cost
end

-- ceil(debt * to / from). The product may pass 2^53, so the part of the debt below `from` is
-- multiplied bit by bit, the remainder staying below 3 * from.
local function rescale(debt, from, to)
  if from == to then
    return debt
  end
  local part = debt % from
  local quotient, rest = 0, 0
  local bit, bits = 1, to
  while bit * 2 <= bits do
    bit = bit * 2
  end
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if bits >= bit then
      bits = bits - bit
      rest = rest + part
    end
    quotient = quotient + math.floor(rest / from)
    rest = rest % from
    bit = bit / 2
  end
  return math.floor(debt / from) * to + quotient + (rest > 0 and 1 or 0)
end

-- What `units` leave of a debt.
local function paid(quota, debt, units)
  if units >= units_until_paid(quota, debt) then
    return 0
  end
  return debt - units * quota.gain
end

function token_bucket.view(stored, quota, now)
  local boundary = now - now % quota.unit
  if not stored then
    return bucket(quota, 0, boundary, now)
  end
  -- What no quota writes denies no longer than this one can.
  local largest = stored.full_at - stored.at < LONGEST and quota.largest or 2 * quota.full
  local debt = math.min(rescale(stored.debt, stored.token, quota.token), largest)
  local since = div_ceil(stored.at, quota.unit) * quota.unit
  local units = math.floor(math.max(0, boundary - since) / quota.unit)
  return bucket(quota, paid(quota, debt, units), boundary, stored.charged)
end

-- Another quota, or a clock that stepped back: what is reported holds only if it is kept.
function token_bucket.mends(stored, view)
  return view.debt > 0 and view.full_at ~= stored.full_at
end

function token_bucket.used(view, quota)
  return div_ceil(view.debt, quota.token)
end

function token_bucket.wait(_, view, quota, now, cost)
  -- In this order no sum passes 2^53.
  local over = cost * quota.token - quota.full + view.debt
  if over <= 0 then
    return 0
  end
  return units_until_paid(quota, over) * quota.unit - (now - view.at)
end

-- What is left of the debts that were made up to the charge: the rest has flowed in already, and must not
-- be there twice.
local function still_owed(quota, view, number)
  local since = view.charged - number
  -- A product above 2^53 is not exact, and too large all the same.
  return since < 0 and 0 or math.max(0, view.debt - since * quota.token)
end

function token_bucket.write(_, view, quota, _, change)
  local does, debt = change.does, view.debt
  if does == 'charge' then
    local charged = count(view.charged, change.amount)
    local state = bucket(quota, debt + change.amount * quota.token, view.at, charged)
    return state, change.amount, state.at, charged
  elseif does == 'give_back' then
    local given = math.min(change.amount, quota.capacity) * quota.token
    given = math.min(given, still_owed(quota, view, change.number))
    return bucket(quota, debt - given, view.at, view.charged), div_ceil(given, quota.token)
  elseif does == 'overrun' then
    -- As much debt again as the bucket holds, and no more.
    local room = math.floor(math.max(0, 2 * quota.full - debt) / quota.token)
    local taken = math.min(change.amount, room)
    local charged = count(view.charged, taken)
    return bucket(quota, debt + taken * quota.token, view.at, charged), taken
  end
  return view, 0
end

-- By then the largest debt is paid off.
function token_bucket.counts_until(quota, at)
  return moment(at + units_until_paid(quota, 2 * quota.full) * quota.unit)
end
