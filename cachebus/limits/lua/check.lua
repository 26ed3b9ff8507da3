-- check: count one request against every limit, or, if any refuses, against none. A refusal writes nothing.
-- KEYS[i] counter i, all in one slot
-- ARGV[1] cost   ARGV[2] 'take', or 'peek' to write nothing either way
-- ARGV[3..] for each key: strategy (log, windows, bucket, fixed), limit, window in us
-- returns {server time in us, then for each key:
--          units free now, us until this cost would pass (0 it does, -1 never), us until more is free (0 all is)}
--@include redis/clock
--@include limits/log
--@include limits/windows
--@include limits/bucket
--@include limits/fixed
local strategies = { log = limit_log, windows = limit_windows, bucket = limit_bucket, fixed = limit_fixed }
local cost, take = tonumber(ARGV[1]), ARGV[2] == 'take'
local now = server_time()
local limits = {}
for i, key in ipairs(KEYS) do
  local strategy, limit, window = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  limits[i] = strategies[strategy](key, limit, window, cost, now)
  if limits[i].retry ~= 0 then take = false end
end
local reply = { now }
for _, limit in ipairs(limits) do
  if take then
    limit.reset = limit.take()
    limit.free = limit.free - cost
  end
  reply[#reply + 1] = limit.free
  reply[#reply + 1] = limit.retry
  reply[#reply + 1] = limit.reset
end
return reply
