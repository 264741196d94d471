-- How states are written. A fixed window's is a plain integer, as INCR makes it. Leases are a sorted set; see
-- concurrency.lua. Every other value begins with the letter of its kind and a byte for its version, then whole numbers of 7
-- bytes, the highest byte first (2^53 fits in).
--
-- A kind is how a value is read and written:
--   head                    what its values begin with
--   name                    its number
--   read(key)               as much of the value as parse needs, in two parts if it likes; false if there is none; nil if it
--                           is of another type; a kind without it takes the whole value
--   parse(raw, key, more)   a state, of the first part and the second; nil if the value is none
--   over(state)             whether it says no more than a missing one
--   save(key, state, floor) writes it

-- What a call may need, by number. Each is defined when a call first needs it: to define all of them takes longer than a call.
local define
-- Nothing yet, with room for all.
local made = { false, false, false, false, false, false, false, false, false, false }
-- The letters with which the values of each begin stand at its number.
local LETTERS = ' sblc ro'

-- Nil if there is none of that number.
local function make(number)
  local one = made[number]
  if not one then
    one = define(number)
    made[number] = one
  end
  return one
end

local function read_value(key)
  return read('GET', key)
end

-- The kind of a value, and whether it is of another version, in which there may be kinds that this one does not know. Nil and
-- nothing if it is no state at all.
local function kind_of(raw)
  local first, version = string.byte(raw, 1, 2)
  if not first then
    return nil
  elseif first >= 48 and first <= 57 then
    return make(FIXED_WINDOW).kind, false
  end
  local number = first ~= 32 and string.find(LETTERS, string.char(first), 1, true)
  local kind = number and make(number).kind
  -- Leases are no string in this version.
  if kind and number ~= CONCURRENCY and version == string.byte(kind.head, 2) then
    return kind, false
  elseif kind and version == 58 then
    -- Text that begins like a value of an earlier form: after its letter, a colon.
    return kind, true
  elseif version and version <= 31 and first >= 97 and first <= 122 then
    -- A letter, and a control byte, with which no text goes on.
    return kind, true
  end
end
