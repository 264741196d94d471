-- Token bucket, exact in integers. Mirrors token_bucket.rs.
-- Quota: capacity, gain and token (fractions), unit (us), full.
-- State: token, debt (fractions), at, full_at, since (us): when it was last full; gain and unit, by which it is paid off, where
-- they are known.
--
-- A value has them all, and until when the key lives (ms), for the hot script: 44 bytes. Most have room for them in 28, which a
-- Redis keeps in 16 bytes less: at, debt (6 bytes), token and the time since it was full (5 each), gain and unit (1), and the
-- block of time until which the key lives (2); full_at follows from debt, gain and unit.
local bucket_kind = { head = 'b\1', name = 3 }

local BUCKET, SHORT_BUCKET = '>I7I7I7I7I7I7', '>I7I6I5I5BI2'
local units = { 1, 1000, 1000000 }

local function parse_short(raw)
  local at, debt, token, past, rate = struct.unpack(SHORT_BUCKET, raw, 3)
  local gain, unit = rate % GAINS, units[math.floor(rate / GAINS) + 1]
  if math.min(token, gain) == 0 or not unit or past > at then
    return nil
  end
  local full_at = at + div_ceil(debt, gain) * unit
  if not are_exact(at, full_at) then
    return nil
  end
  return { token = token, debt = debt, at = at, full_at = full_at, since = at - past }
end

function bucket_kind.parse(raw)
  if #raw == 28 then
    return parse_short(raw)
  elseif #raw ~= 44 then
    return nil
  end
  local token, debt, at, full_at, since, kept = struct.unpack(BUCKET, raw, 3)
  if token == 0 or not are_exact(token, debt, at, full_at, since, kept) then
    return nil
  end
  return { token = token, debt = debt, at = at, full_at = full_at, since = since }
end

-- Paid off under the quota that wrote it: the key may have expired, so it says nothing now.
function bucket_kind.over(state)
  return now >= state.full_at
end

-- The short value, if there is room for all.
local function short_value(state, kept)
  local past = state.at - state.since
  local has_room = state.debt < SHORT_DEBT and state.token < SHORT_NUMBER and past >= 0 and past < SHORT_NUMBER
  if not has_room or state.gain >= GAINS or state.full_at > MAX_INTEGER then
    return nil
  end
  local unit = state.unit == 1 and 0 or state.unit == 1000 and 1 or state.unit == 1000000 and 2
  if unit then
    -- A lower bound, within the blocks from the state's on.
    local block = math.min(math.floor(kept / KEPT_MILLIS), math.floor(state.at / KEPT_BLOCK) + KEPT_BLOCKS - 1)
    return struct.pack(
      SHORT_BUCKET,
      state.at,
      state.debt,
      state.token,
      past,
      state.gain + unit * GAINS,
      block % KEPT_BLOCKS
    )
  end
end

function bucket_kind.save(key, state, floor)
  local ttl = time_to_live(floor, state.full_at)
  local value = short_value(state, kept_until(ttl))
    or struct.pack(
      BUCKET,
      state.token,
      state.debt,
      state.at,
      moment(state.full_at),
      state.since,
      kept_until(ttl)
    )
  call('SET', key, bucket_kind.head .. value, 'PX', ttl)
end

-- Units in which `debt` is paid off. At most `largest`, so that no sum passes 2^53.
local function units_until_paid(quota, debt)
  return div_ceil(debt, quota.gain)
end

local function bucket(quota, debt, at, since)
  local full_at = at + units_until_paid(quota, debt) * quota.unit
  return {
    token = quota.token,
    debt = debt,
    at = at,
    full_at = full_at,
    since = since,
    gain = quota.gain,
    unit = quota.unit,
  }
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

-- What a life pays off (fractions); more than a full bucket if it does not matter how much more.
local function paid_in(quota, life)
  local units = div_ceil(life, quota.unit)
  if units > quota.full / quota.gain then
    return quota.full + 1
  end
  return units * quota.gain
end

-- The whole tokens of debt that a mark stands for.
local function marked_debt(quota, number)
  return math.min(number, 2 * quota.capacity) * quota.token
end

-- What of the debt at a mark is not yet paid off: what has flowed in already must not be there twice.
-- Nothing, if the bucket was full meanwhile, or if the clock stepped back behind the mark.
local function still_owed(quota, view, at, number)
  if at < view.since or at > view.at then
    return 0
  end
  local units = math.floor((view.at - at) / quota.unit)
  return math.min(paid(quota, marked_debt(quota, number), units), view.debt)
end

return {
  kind = bucket_kind,
  quota = function(capacity, gain, token, unit)
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
  end,
  view = function(stored, quota, now)
    local boundary = now - now % quota.unit
    if not stored then
      return bucket(quota, 0, boundary, boundary)
    end
    -- What no quota writes denies no longer than this one can.
    local largest = stored.full_at - stored.at < LONGEST and quota.largest or 2 * quota.full
    local debt = math.min(rescale(stored.debt, stored.token, quota.token), largest)
    local since = div_ceil(stored.at, quota.unit) * quota.unit
    local units = math.floor(math.max(0, boundary - since) / quota.unit)
    local left = paid(quota, debt, units)
    return bucket(quota, left, boundary, left == 0 and boundary or stored.since)
  end,
  -- Another quota, or a clock that stepped back: what is reported holds only if it is kept.
  mends = function(stored, view)
    return view.debt > 0 and view.full_at ~= stored.full_at
  end,
  -- A debit is charged as of the end of its life: on what the bucket owes by now, or on what the life pays off, if that is
  -- more.
  debitable = function(view, quota, _, life)
    local onto = math.max(view.debt, paid_in(quota, life))
    return math.floor(math.max(0, quota.full - onto) / quota.token), life
  end,
  never_debits = function(quota, life)
    return paid_in(quota, life) > quota.full - quota.token
  end,
  used = function(view, quota)
    return div_ceil(view.debt, quota.token)
  end,
  wait = function(_, view, quota, now, cost)
    -- In this order no sum passes 2^53.
    local over = cost * quota.token - quota.full + view.debt
    if over <= 0 then
      return 0
    end
    return units_until_paid(quota, over) * quota.unit - (now - view.at)
  end,
  write = function(_, view, quota, _, change)
    local does, debt, since = change.does, view.debt, view.since
    if does == 'charge' or does == 'debit' then
      if does == 'debit' then
        debt = math.max(debt, paid_in(quota, change.life))
      end
      local state = bucket(quota, debt + change.amount * quota.token, view.at, since)
      return state, change.amount, state.at, math.floor(state.debt / quota.token)
    elseif does == 'give_back' then
      local given = math.min(change.amount, quota.capacity) * quota.token
      given = math.min(given, still_owed(quota, view, change.at, change.number))
      return bucket(quota, debt - given, view.at, since), div_ceil(given, quota.token)
    elseif does == 'overrun' then
      -- As much debt again as the bucket holds, and no more.
      local room = math.floor(math.max(0, 2 * quota.full - debt) / quota.token)
      local taken = math.min(change.amount, room)
      return bucket(quota, debt + taken * quota.token, view.at, since), taken
    end
    return view, 0
  end,
  counts_until = function(quota, at, number)
    return moment(at + units_until_paid(quota, marked_debt(quota, number)) * quota.unit)
  end,
}
