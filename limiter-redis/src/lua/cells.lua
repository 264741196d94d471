-- What a call works on: the value of each key as read, or as earlier groups of the call left it. All is
-- written at the end. A kind is how a value is read and written: parse(raw, key, now) gives a state, or nil if
-- the value is none; over(state, now) says whether it says no more than a missing one; save(key, state, now,
-- floor) writes it.
local now -- us
local cells = {}
local unreadable = 0

-- The cell of a key, by its index in KEYS.
local function cell_of(key)
  local cell = cells[key]
  if not cell then
    local raw = clock.get(KEYS[key])
    cell = { key = key, raw = raw, foreign = raw == nil }
    cells[key] = cell
  end
  return cell
end

-- The cell's state if it is of that kind and counts; else nil.
local function state_in(cell, kind)
  if not cell.changed and cell.raw and cell.kind ~= kind then
    cell.kind, cell.state = kind, kind.parse(cell.raw, KEYS[cell.key], now)
    unreadable = unreadable + (cell.state and 0 or 1)
  end
  if cell.kind == kind and cell.state and not kind.over(cell.state, now) then
    return cell.state
  end
end

-- Keeps a state, or none. A key of another type is never written.
local function keep_in(cell, kind, state)
  if not cell.foreign then
    cell.changed, cell.kind, cell.state = true, kind, state
  end
end

local function write_cells(floor)
  for key, cell in pairs(cells) do
    if cell.changed and cell.state then
      cell.kind.save(KEYS[key], cell.state, now, floor)
    elseif cell.changed then
      clock.drop(KEYS[key])
    end
  end
end
