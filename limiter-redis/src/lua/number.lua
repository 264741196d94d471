-- Numbers that scripts accept: decimal integers in 0..2^53-1, which a double holds exactly.
local MAX_INTEGER = 9007199254740991

-- The number, or nil. `nan`, `0x10`, `1e3`, `-5` and ` 7` are none.
local function integer(text)
  if type(text) ~= 'string' or #text > 16 or not string.find(text, '^%d+$') then
    return nil
  end
  local number = tonumber(text)
  if number > MAX_INTEGER then
    return nil
  end
  return number
end

-- ceil(a / b), exact for integers below 2^53.
local function div_ceil(a, b)
  return math.floor((a + b - 1) / b)
end
