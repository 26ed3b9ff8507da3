-- sweep: free the memory of an entry that nobody may read any more, unless another one lies there by now.
-- KEYS[1] entry
-- ARGV[1] era and born of the entry that was looked at: 16 characters, 16 digits
-- returns bytes of the entry removed, 0 another one lies there, or none
if redis.call('GETRANGE', KEYS[1], 2, 33) ~= ARGV[1] then return 0 end
local bytes = redis.call('STRLEN', KEYS[1])
redis.call('UNLINK', KEYS[1])
return bytes
