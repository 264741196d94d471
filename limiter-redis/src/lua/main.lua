-- Runs a batch of groups. Reads first, decides, and writes last, so that an error leaves nothing
-- half done; group k sees what the groups before it did.
--
-- KEYS: each key once, of limits and of records.
-- ARGV: floor of the TTLs of states that only time makes fresh (ms), number of groups; for each group
-- its number of steps and the key (its index in KEYS) of its operation's record, 0 for none; if there is one,
-- the group's fingerprint (16 bytes) and how long it is remembered (us); for each step
--   key (index in KEYS), shadow (0, 1), action, algorithm, four numbers of the quota; in an operation the step's place in
--   the record (from 0), and the key of the record of its charge's refund, 0 for none; and by action:
--   0 charge, 1 peek: cost                    6 cancel: key of the record, time to live (us)
--   2 reset: nothing                          7 acquire: lease (16 bytes), key of the record of its release, cost,
--   3 refund: key of the record, cost, mark     time to live
--   (at, number)                              8 renew: lease, time to live
--   4 reserve: key of the record, estimate,   9 release: lease, key of the record of its release, time to live
--   time to live (us)                        10 debit: the most to take, life (us)
--   5 settle: key of the record, actual cost
-- Algorithms: 1 fixed window, 2 sliding window, 3 token bucket, 4 sliding log, 5 concurrency, 6 calendar window.
-- Reply: the number of unreadable values that were taken for fresh ones, then for each group {0} and nine
-- integers a step (verdict: 0 admit, 1 deny, 2 never, 3 unseen; used; retry_after and reset_after in us; charged; its mark's
-- at and number; what is known of an earlier answer: 0 nothing, 1 held, 2 settled, 3 done; to what it was settled, or the
-- life of a debit in us), or {1, step} for a key of another type, {2, step} for a reservation or lease that is gone,
-- {3, step} for an id that was used for something else (steps count from 0), {4} for an operation's id, {5, step, kind} for a
-- live state of another kind (1 to 5 as above, 7 and 8 records), {6, step} for a value of another version.
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
