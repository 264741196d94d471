-- How states are written. A fixed window's is a plain integer, as INCR makes it. Every other value begins with the letter of
-- its kind and a byte for its version, then whole numbers of 7 bytes, the highest byte first (2^53 fits in).
local FIRST_VERSION = 1
-- Text that begins like a value of an earlier form; and where control bytes, which no text begins with, end.
local TEXT_VERSION, LAST_VERSION = 58, 31
-- a to z.
local FIRST_LETTER, LAST_LETTER = 97, 122
local NUMBER_BYTES = 7

-- The kinds by their letters' bytes; each kind's file adds its own. And the algorithm whose kind it is, by its number.
local kinds = {}
local ALGORITHM_OF = {
  [string.byte('s')] = 2,
  [string.byte('b')] = 3,
  [string.byte('l')] = 4,
  [string.byte('c')] = 5,
}

-- A kind: how values of that letter are read and written. `name` is its number in the reply of a call.
local function new_kind(letter, name)
  local kind = { head = letter .. string.char(FIRST_VERSION), name = name }
  kinds[string.byte(letter)] = kind
  return kind
end

local window_kind = { name = 1 }

-- The kind of a value, and whether it is of another version, in which there may be kinds that this one does not know. Nil and
-- nothing if it is no state at all.
local function kind_of(raw)
  local first, version = string.byte(raw, 1, 2)
  if not first then
    return nil
  elseif first >= 48 and first <= 57 then
    return algorithm(1).kind, false
  elseif not kinds[first] and ALGORITHM_OF[first] then
    algorithm(ALGORITHM_OF[first])
  end
  local kind = kinds[first]
  if kind and version == FIRST_VERSION then
    return kind, false
  elseif kind and version == TEXT_VERSION then
    return kind, true
  elseif version and version <= LAST_VERSION and first >= FIRST_LETTER and first <= LAST_LETTER then
    return kind, true
  end
end

-- The format of so many numbers.
local function numbers(count)
  return '>' .. string.rep('I' .. NUMBER_BYTES, count)
end

-- Whether all of them are exact.
local function are_exact(...)
  return math.max(...) <= MAX_INTEGER
end
