-- cancel: take back an event that is not due yet. Its id is free again.
-- KEYS[1] delayed   KEYS[2] delayed items   KEYS[3] mark of the id
-- ARGV[1] id
-- returns 1 it will not be published, 0 nothing waits under this id
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
