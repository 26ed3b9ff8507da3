-- end_all: end every session of a user, but perhaps one. Costs the same whatever their number.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the id of the session to keep, '' none
-- returns how many were ended
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now = server_time()
local live = redis.call('ZCOUNT', ends, '(' .. fixed(now), '+inf')
local kept = ARGV[1] ~= '' and find(records, ARGV[1], now) or nil
redis.call('UNLINK', records, ends) -- first, so that a server out of memory does it too
if not kept then return live end
store(records, ends, kept)
tidy(records, ends, now)
return live - 1
