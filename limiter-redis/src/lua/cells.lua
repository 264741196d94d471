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
    if raw then
      cell.of, cell.is_other_version = kind_of(raw)
    end
    cells[key] = cell
  end
  return cell
end

-- Takes the value as read apart, once. One that is no state of its kind, or of any, is taken for none and counted.
local function parse(cell)
  if not (cell.changed or cell.parsed) and cell.raw then
    cell.parsed, cell.kind = true, cell.of
    if cell.of and not cell.is_other_version then
      cell.state = cell.of.parse(cell.raw, KEYS[cell.key], now)
    end
    if not (cell.state or cell.is_other_version) then
      unreadable = unreadable + 1
    end
  end
end

-- The cell's state if it is of that kind and counts; else nil.
local function state_in(cell, kind)
  parse(cell)
  if cell.kind == kind and cell.state and not kind.over(cell.state, now) then
    return cell.state
  end
end

-- Whether the cell holds what that kind must not take for nothing: a value of another version (0), or a state of another kind
-- that counts (that kind's number).
local function stranger_in(cell, kind)
  if cell.is_other_version and not cell.changed then
    return 0
  end
  parse(cell)
  if cell.state and cell.kind ~= kind and not cell.kind.over(cell.state, now) then
    return cell.kind.name
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
