-- Calendar window: a fixed window that ends with the minute, hour, day or month of UTC. Mirrors
-- calendar_window.rs. Quota: capacity, length (ms; nil for a month), tolerance (ms).
local DAY_MILLIS = 86400000
local MONTH_UNIT = 4
local lengths = { 60000, 3600000, DAY_MILLIS }

-- The first day of the next month; days are counted from the epoch, years from March. Source: see
-- calendar_window.rs.
local function end_of_month(day)
  local floor = math.floor
  day = day + 719468
  local era, of_era = floor(day / 146097), day % 146097
  local year = floor(
    (of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365
  )
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153) + 1
  year, month = year + floor(month / 12), month % 12
  local first = 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400)
  return era * 146097 + first + floor((153 * month + 2) / 5) - 719468
end

-- The first millisecond after the unit that holds `millis`.
local function unit_end(quota, millis)
  if not quota.length then
    return end_of_month(math.floor(millis / DAY_MILLIS)) * DAY_MILLIS
  end
  return (math.floor(millis / quota.length) + 1) * quota.length
end

return {
  kind = fixed_window.kind,
  quota = function(limit, unit)
    if limit < 1 or not (lengths[unit] or unit == MONTH_UNIT) then
      return nil
    end
    return { capacity = limit, length = lengths[unit], tolerance = 20000 }
  end,
  view = function(stored, quota, now)
    local millis = math.floor(now / 1000)
    return window_or(stored, math.max(unit_end(quota, millis) - 1, millis + 1))
  end,
  mends = fixed_window.mends,
  debitable = fixed_window.debitable,
  used = fixed_window.used,
  wait = fixed_window.wait,
  write = fixed_window.write,
  counts_until = fixed_window.counts_until,
}
