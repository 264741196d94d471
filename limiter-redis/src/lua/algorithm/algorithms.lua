-- The algorithms by their numbers. Each is defined when a call first needs it: to define all of them takes as long as a call.
local makers, algorithms = {}, {}

-- Nil if there is none of that number.
local function algorithm(number)
  if not algorithms[number] and makers[number] then
    algorithms[number] = makers[number]()
  end
  return algorithms[number]
end
