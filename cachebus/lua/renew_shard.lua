-- renew_shard: keep a shard, and hear how it stands.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] events   KEYS[4] retries
-- ARGV[1] token   ARGV[2] lease, ms
-- returns {0} it is not the caller's any more, or {1, ms until the next retry is due or -1, events waiting}
--@include clock
--@include shard
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 0 } end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 1, next_due(KEYS[4]), waiting(KEYS[2], KEYS[3]) }
