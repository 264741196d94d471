//! The yardstick of what a limit costs a server.

/// The generic cell rate algorithm (ITU-T I.371) with the server's time, in the fewest commands.
pub const GCRA: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + 1000
if arrival - now > 1000000 then
  return 0
end
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', 2000)
return 1";
