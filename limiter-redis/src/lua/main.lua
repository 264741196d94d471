-- Runs a batch of groups. Reads first, decides, and writes last (leases at the end of their group), so that an error leaves
-- nothing half done; group k sees what the groups before it did.
--
-- KEYS: each key once, of limits and of records.
-- ARGV: floor of the TTLs of states that only time makes fresh (ms; 7 bytes), then one for each group. All numbers have the highest
-- byte first. A group is
--   how many steps it has (2 bytes), and the key (its index in KEYS; 2 bytes) of its operation's record, 0 for none; how long
--   that is remembered (us; 7 bytes), and the group's fingerprint (16 bytes)
-- and its steps, each 75 bytes, with 0 for what it lacks:
--   key (index in KEYS; 2 bytes), shadow (0, 1; 1 byte), action (1 byte), its place in the operation's record (from 0;
--   1 byte), algorithm (1 byte), the key of the record of its charge's refund in an operation (2 bytes), the key of its record
--   (2 bytes); four numbers of the quota, cost, x and y (7 bytes each); lease (16 bytes)
-- The actions, and what they have:
--   0 charge, 1 peek: cost                    6 cancel: record, time to live (us) as x
--   2 reset: nothing                          7 acquire: lease, the record of its release, cost, time to live as x
--   3 refund: record, cost, mark as x and y   8 renew: lease, time to live as x
--   4 reserve: record, cost, time to live     9 release: lease, the record of its release, time to live as x
--   as x                                     10 debit: the most to take as cost, life (us) as x
--   5 settle: record, actual cost
-- Algorithms: 1 fixed window, 2 sliding window, 3 token bucket, 4 sliding log, 5 concurrency, 6 calendar window.
-- Reply: the number of unreadable values that were taken for fresh ones, then for each group
--   a text with 51 bytes for each step: verdict (0 admit, 1 deny, 2 never, 3 unseen) and what is known of an earlier answer
--   (0 nothing, 1 held, 2 settled, 3 done), a byte each; and in 7 bytes each: used; retry_after and reset_after in us; charged;
--   its mark's at and number; to what it was settled, or the life of a debit in us
-- or integers: {1, step} for a key of another type, {2, step} for a reservation or lease that is gone,
-- {3, step} for an id that was used for something else (steps count from 0), {4} for an operation's id, {5, step, kind} for a
-- live state of another kind (1 to 5 as above, 7 and 8 records), {6, step} for a value of another version.
local function run()
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
  if #ARGV > 129 or #KEYS > 256 or #ARGV[1] ~= CALL_BYTES then
    refuse('a call takes at most 128 groups and 256 keys')
  end
  local groups, replies = {}, { 0, 0 }
  for index = 2, #ARGV do
    groups[index] = read_group(ARGV[index])
  end
  for index = 2, #ARGV do
    local group = groups[index]
    replies[index] = group.operation and make(OPERATIONS).apply(group) or (apply_new(group))
  end
  write_cells((struct.unpack(CALL, ARGV[1])))
  replies[1] = unreadable
  return replies
end

return finish(run)
