-- unlock: take a lock away from whoever has it; the first in line is offered it. For operators.
-- KEYS[1] lock   KEYS[2] line
-- ARGV[1] fence of the holder that is meant   ARGV[2] wake channel
-- returns 1 it was taken away, 0 that holder does not have it any more
--@include redis/clock
--@include locks/lock
local lock, line, now = KEYS[1], KEYS[2], server_time()
local held = holder(lock)
if not held or held.offered or held.ends <= now or redis.call('HGET', lock, 'fence') ~= ARGV[1] then return 0 end
if not pass_on(lock, line, ARGV[2], now, '') then
  redis.pcall('PUBLISH', ARGV[2], cjson.encode({ lock, 'offer', '', 0, '' })) -- the holder hears of it and asks
end
return 1
