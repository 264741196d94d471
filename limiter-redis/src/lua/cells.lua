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

-- Reads the cell as that kind.
local function read_as(cell, kind)
  if not cell.changed and cell.raw and cell.kind ~= kind then
    cell.kind, cell.state = kind, kind.parse(cell.raw, KEYS[cell.key], now)
  end
  if cell.kind == kind and cell.state and not kind.over(cell.state, now) then
    return cell.state
  end
end

-- The cell's state if it is of that kind and counts; else nil.
local function state_in(cell, kind)
  local known = cell.changed or not cell.raw or cell.kind == kind
  local state = read_as(cell, kind)
  if not known and not cell.state then
    unreadable = unreadable + 1
  end
  return state
end

-- Whether the cell holds what that kind must not take for nothing: a value of another version, or the number of another kind
-- whose state counts. False if it may be worked on.
local function stranger_in(cell, kind)
  if cell.changed then
    return cell.state and cell.kind ~= kind and not cell.kind.over(cell.state, now) and cell.kind.name
  elseif not cell.raw or cell.kind == kind then
    return false
  end
  local other, is_other_version = kind_of(cell.raw)
  if is_other_version then
    return 0
  elseif not other or other == kind then
    return false
  end
  return read_as(cell, other) and other.name or false
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
