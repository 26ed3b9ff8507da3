-- end: end one session, whichever of its ids is given.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the id
-- returns 1 ended, 0 there was none
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now = server_time()
local session = find(records, ARGV[1], now)
if session then forget(records, ends, session.digest) end
tidy(records, ends, now)
return session and 1 or 0
