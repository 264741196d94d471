-- A shadow that does not fit stands in nobody's way.
if not fits then
  if fits == nil then
    is_strange, found = true, ''
  elseif kind % ENTANGLED < SHADOWED then
    are_admitted = false
  else
    found = '~' .. found
  end
end
local takes, refused = fits and kind % SHADOWED == 0 and cost > 0, nil
