-- renew: keep a lease while its load runs.
-- KEYS[1] lease
-- ARGV[1] token   ARGV[2] lease_ms
-- returns 1 renewed, 0 it is not ours any more
--@include cache/tiers/lease
if holder_of(KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
