-- renew: extend a lease. What has ended, or was another's in between, is not ours again.
-- KEYS[1] lock   KEYS[2] line
-- ARGV[1] claim   ARGV[2] lease from now, ms   ARGV[3] wake channel
-- returns 1 renewed, 0 it is not ours any more
--@include redis/clock
--@include locks/lock
local lock, claim, now = KEYS[1], ARGV[1], server_time()
local held = holder(lock)
if not held or held.claim ~= claim or held.ends <= now then return 0 end
local ends = math.max(held.ends, now + tonumber(ARGV[2]) * 1000)
redis.call('HSET', lock, 'ends', fixed(ends))
redis.call('PEXPIRE', lock, lifetime(ends - now + KEPT_US))
tell(lock, KEYS[2], ARGV[3], 'held', claim, ends - now, '')
return 1
