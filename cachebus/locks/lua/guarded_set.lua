-- guarded_set: write a value, unless somebody with a later fencing token has written before.
-- KEYS[1] value: a hash of value and token
-- ARGV[1] fencing token   ARGV[2] value   ARGV[3] ttl, ms
-- returns 0 written, otherwise the later token
local last = redis.call('HGET', KEYS[1], 'token')
if last and tonumber(last) > tonumber(ARGV[1]) then return tonumber(last) end
redis.call('HSET', KEYS[1], 'value', ARGV[2], 'token', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
