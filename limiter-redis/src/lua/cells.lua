-- What a call works on: the state of each key as read, or as earlier groups of the call left it. What is kept in a cell is
-- written at the end.
local cells = {}
-- How many values of the group at hand were no state of any kind; and how often anything was kept.
local unreadable, kept = 0, 0

-- What a key holds that is of another type than values of that kind: the value as read, its kind, whether it is of another
-- version, and what else its kind has read.
local function read_stranger(key, likely)
  local leases = make(CONCURRENCY).kind
  local raw
  if likely == leases then
    raw = read_value(key)
    if raw then
      return raw, kind_of(raw)
    end
  else
    local more
    raw, more = leases.read(key)
    if raw then
      return raw, leases, false, more
    end
  end
  return leases.read_other(key), leases, true
end

-- The cell of a key, by its index in KEYS, which is likely to hold a state of that kind, by number. A value that is no state of
-- any kind is taken for none and counted.
local function cell_of(index, number)
  local cell = cells[index]
  if cell then
    return cell
  end
  local key, kind = KEYS[index], made[number] and made[number].kind
  local raw, is_other_version, more
  if kind and kind.read then
    raw, more = kind.read(key)
  else
    raw = read_value(key)
  end
  if raw == nil then
    raw, kind, is_other_version, more = read_stranger(key, kind)
  elseif raw and not (kind and string.sub(raw, 1, 2) == kind.head) then
    kind, is_other_version = kind_of(raw)
  end
  cell = {
    key = key,
    kind = kind,
    foreign = raw == nil,
    is_other_version = is_other_version,
    changed = false,
    changes = 0,
    state = nil,
  }
  if raw and not is_other_version then
    cell.state = kind and kind.parse(raw, key, more)
    if not cell.state then
      unreadable = unreadable + 1
    end
  end
  cells[index] = cell
  return cell
end

-- The cell's state if it is of that kind, by number, and counts; else nil.
local function state_in(cell, name)
  local state = cell.state
  if state and cell.kind.name == name and not cell.kind.over(state) then
    return state
  end
end

-- Whether the cell holds what that kind must not take for nothing: a value of another version (0), or a state of another kind
-- that counts (that kind's number).
local function stranger_in(cell, name)
  if cell.is_other_version then
    return 0
  elseif cell.state and cell.kind.name ~= name and not cell.kind.over(cell.state) then
    return cell.kind.name
  end
end

-- Keeps a state, or none. A key of another type is never written.
local function keep_in(cell, kind, state)
  if not cell.foreign then
    cell.changed, cell.changes = true, cell.changes + 1
    kept = kept + 1
    cell.kind, cell.state, cell.is_other_version = kind, state, false
  end
end

-- With these, the first write of a script is refused by a server that can write nothing at all for now. In every other error
-- one key is at fault.
local function is_of_all_keys(refused)
  local code = string.match(refused, '^%u+')
  return code == 'OOM' or code == 'MISCONF' or code == 'READONLY' or code == 'NOREPLICAS'
end

local function write_cell(cell, floor)
  if cell.state then
    cell.kind.save(cell.key, cell.state, floor)
  else
    call('DEL', cell.key)
  end
end

-- Writes what has changed. What is refused is kept in the cell; true if anything was.
local function write_cells(floor)
  local is_refused, refusal = false, nil
  for _, cell in pairs(cells) do
    if cell.changed and not cell.refused then
      local refused = refusal
      if not refused then
        local _
        _, refused = attempt(write_cell, cell, floor)
        if refused and is_of_all_keys(refused) then
          refusal = refused
        end
      end
      cell.refused = refused
      is_refused = is_refused or refused ~= nil
    end
  end
  return is_refused
end
