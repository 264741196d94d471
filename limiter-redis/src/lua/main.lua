-- Runs a batch of groups. Reads first, decides, and writes last (leases at the end of their group), so that an error leaves
-- nothing half done; group k sees what the groups before it did. What one group cannot do, the others do.
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
-- Reply: for each group
--   a text: how many unreadable values were taken for fresh ones (1 byte), then 51 bytes for each step: verdict (0 admit,
--   1 deny, 2 never, 3 unseen) and what is known of an earlier answer (0 nothing, 1 held, 2 settled, 3 done), a byte each; and
--   in 7 bytes each: used; retry_after and reset_after in us; charged; its mark's at and number; to what it was settled, or the
--   life of a debit in us
-- or an array: {0, error} for an error of Redis, which is this group's alone; and integers: {1, step} for a key of another type,
-- {2, step} for a reservation or lease that is gone, {3, step} for an id that was used for something else (steps count from 0),
-- {4} for an operation's id, {5, step, kind} for a live state of another kind (1 to 5 as above, 7 and 8 records), {6, step} for
-- a value of another version.
local function apply(group)
  return group.operation and make(OPERATIONS).apply(group) or (apply_new(group))
end

-- Calls a function with each cell of a group; what it returned first.
local function any_of_cells(group, is_it)
  local found = group.operation and is_it(group.operation)
  for index = 1, #group do
    local step = group[index]
    local record, refund = step.record, step.refund
    found = found or is_it(step.cell) or record and is_it(record) or refund and is_it(refund)
  end
  return found
end

local function refusal_of(group)
  return any_of_cells(group, function(cell)
    return cell.refused
  end)
end

-- A group that ended half way writes none of its cells; nor does any group that worked on one of these.
local function withdraw(groups)
  local refused
  local function take_back(cell)
    cell.refused = cell.refused or refused
  end
  local count = 0
  repeat
    local before = count
    count = 0
    for _, group in ipairs(groups) do
      refused = group.ended or refusal_of(group)
      if refused then
        any_of_cells(group, take_back)
        count = count + 1
      end
    end
  until count == before
end

local function run()
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
  if #ARGV > 129 or #KEYS > 256 or #ARGV[1] ~= CALL_BYTES then
    refuse('a call takes at most 128 groups and 256 keys')
  end
  local groups, replies = {}, {}
  for index = 1, #ARGV - 1 do
    local group, ended = attempt(read_group, ARGV[index + 1])
    groups[index] = group or {}
    groups[index].unreadable, unreadable = unreadable, 0
    replies[index] = ended and { FAILED, ended }
  end
  local has_ended = nil
  for index, group in ipairs(groups) do
    if not replies[index] then
      local before = kept
      local reply, ended = attempt(apply, group)
      if ended and kept > before then
        group.ended, has_ended = ended, true
      elseif ended then
        reply = { FAILED, ended }
      end
      unreadable = math.min(unreadable + group.unreadable, 255)
      replies[index] = type(reply) == 'string' and string.char(unreadable) .. reply or reply
      unreadable = 0
    end
  end
  if has_ended then
    withdraw(groups)
  end
  if write_cells((struct.unpack(CALL, ARGV[1]))) or has_ended then
    for index, group in ipairs(groups) do
      local refused = refusal_of(group)
      replies[index] = refused and { FAILED, refused } or replies[index]
    end
  end
  return replies
end

return finish(run)
