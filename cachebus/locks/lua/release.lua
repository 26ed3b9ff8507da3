-- release: release a lock, or leave its line; the first in line is offered it. Safe to repeat.
-- KEYS[1] lock   KEYS[2] line
-- ARGV[1] claim   ARGV[2] wake channel
-- returns 1 it was ours until now, 0 it was not, or not any more
--@include redis/clock
--@include locks/lock
local lock, line, claim = KEYS[1], KEYS[2], ARGV[1]
local now = server_time()
redis.call('ZREM', line, claim)
local held = holder(lock)
if not held or held.claim ~= claim then return 0 end
pass_on(lock, line, ARGV[2], now, '')
return held.ends > now and 1 or 0
