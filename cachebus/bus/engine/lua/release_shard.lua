-- release_shard: give a shard back, so that the next owner need not wait, nor be careful.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] marks
-- ARGV[1] token
-- returns 1 given back, 0 it was not the caller's
--@include bus/engine/marks
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'owner', '')
unmark(KEYS[3], ARGV[1])
redis.call('DEL', KEYS[1])
return 1
