-- Token bucket, exact in integers. Mirrors token_bucket.rs.
-- Quota: capacity, gain and token (fractions), unit (us), full.
-- State: token, debt (fractions), at, full_at (us).
local token_bucket = {}

function token_bucket.quota(capacity, gain, token, unit)
  if math.min(capacity, gain, token, unit) < 1 then
    return nil
  end
  return { capacity = capacity, gain = gain, token = token, unit = unit, full = capacity * token }
end

function token_bucket.parse(raw)
  local token, debt, at, full_at = string.match(raw, '^b:(%d+):(%d+):(%d+):(%d+)$')
  token, debt, at, full_at = integer(token), integer(debt), integer(at), integer(full_at)
  if not (token and debt and at and full_at) or token == 0 then
    return nil
  end
  return { token = token, debt = debt, at = at, full_at = full_at }
end

local function state_of(quota, debt, at)
  local full_at = at + div_ceil(debt, quota.gain) * quota.unit
  return { token = quota.token, debt = debt, at = at, full_at = full_at }
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

function token_bucket.settle(state, quota, now)
  local boundary = now - now % quota.unit
  -- Paid off under the quota that wrote it: the key may have expired, so it says nothing now.
  if not state or now >= state.full_at then
    return state_of(quota, 0, boundary)
  end
  local debt = math.min(rescale(state.debt, state.token, quota.token), 2 * quota.full)
  local since = div_ceil(state.at, quota.unit) * quota.unit
  local units = math.floor(math.max(0, boundary - since) / quota.unit)
  if units >= div_ceil(debt, quota.gain) then
    debt = 0
  else
    debt = debt - units * quota.gain
  end
  local settled = state_of(quota, debt, boundary)
  -- Another quota, or a clock that stepped back: what is reported holds only if it is kept.
  settled.mended = debt > 0 and settled.full_at ~= state.full_at
  return settled
end

function token_bucket.used(state, quota)
  return div_ceil(state.debt, quota.token)
end

function token_bucket.wait(state, quota, now, cost)
  -- In this order no sum passes 2^53.
  local over = cost * quota.token - quota.full + state.debt
  if over <= 0 then
    return 0
  end
  return state.at + div_ceil(over, quota.gain) * quota.unit - now
end

function token_bucket.charge(state, quota, cost)
  return state_of(quota, state.debt + cost * quota.token, state.at)
end

function token_bucket.save(key, state, _, now, floor)
  local text = string.format(
    'b:%.0f:%.0f:%.0f:%.0f', state.token, state.debt, state.at, state.full_at
  )
  clock.put(key, text, math.max(floor, div_ceil(state.full_at - now, 1000)))
end
