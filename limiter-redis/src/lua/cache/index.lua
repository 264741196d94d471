-- The index of a namespace: a sorted set of its keys by the millisecond of their expiry, by which
-- it is cleared without a scan.
local function index(namespace, member, ttl)
  local time = call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  call('ZADD', namespace, now + ttl, member)
  -- The index outlives its longest-lived member.
  if call('PTTL', namespace) < ttl then
    call('PEXPIRE', namespace, ttl)
  end
  call('ZREMRANGEBYSCORE', namespace, '-inf', now)
end
