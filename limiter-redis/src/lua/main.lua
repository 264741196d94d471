-- Runs a batch of groups. Reads first, decides, and writes last, so that an error leaves nothing
-- half done; group k sees what the groups before it did.
--
-- KEYS: each key once, of limits and of records.
-- ARGV: floor of the TTLs of states that only time makes fresh (ms), number of groups; for each group
-- its number of steps and the key (its index in KEYS) of its operation's record, 0 for none; if there is one,
-- the group's fingerprint (32 hexadecimal digits) and how long it is remembered (us); for each step
--   key (index in KEYS), shadow (0, 1), action, algorithm, four numbers of the quota, and by action:
--   0 charge, 1 peek: cost                    5 settle: key of the record, actual cost
--   2 reset: nothing                          6 cancel: key of the record
--   3 refund: key of the record, cost, mark   7 acquire: lease (32 digits), cost, time to live (us)
--   (at, number)                              8 renew: lease, time to live
--   4 reserve: key of the record, estimate,   9 release: lease
--   time to live (us)
-- Algorithms: 1 fixed window, 2 sliding window, 3 token bucket, 4 sliding log, 5 concurrency, 6 calendar window.
-- Reply: the number of unreadable values that were taken for fresh ones, then for each group {0} and seven
-- integers a step (verdict: 0 admit, 1 deny, 2 never; used; retry_after and reset_after in us; charged; its mark's
-- at and number), or {1, step} for a key of another type, {2, step} for a reservation or lease that is gone,
-- {3, step} for an id that was used for something else (steps count from 0), {4} for an operation's id.
local function run()
  now = clock.now()
  local floor, groups = number_argument(), number_argument()
  if groups > 128 or #KEYS > 256 then
    fail({ err = 'BADARG a call takes at most 128 groups and 256 keys' })
  end
  local replies = { 0 }
  for index = 1, groups do
    replies[index + 1] = apply_group(read_group())
  end
  write_cells(floor)
  replies[1] = unreadable
  return replies
end

return finish(run)
