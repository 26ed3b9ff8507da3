-- release: give a lease back without a value (the load failed), wake whoever waits.
-- KEYS[1] lease
-- ARGV[1] token   ARGV[2] wake channel   ARGV[3] message
-- returns 1 released, 0 it was not ours
--@include cache/tiers/lease
if holder_of(KEYS[1]) ~= ARGV[1] then return 0 end
local waited = redis.call('HGET', KEYS[1], 'waited')
redis.call('DEL', KEYS[1])
if waited then redis.pcall('PUBLISH', ARGV[2], ARGV[3]) end
return 1
