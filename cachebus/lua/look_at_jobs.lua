-- look_at_jobs: what time is it, and whose lease has ended?
-- A lease that ended a day ago belongs to a job that no worker knows any more.
-- KEYS[1] running jobs by end of lease   KEYS[2] run of the server
-- returns {server time, us, {jobs whose lease has ended}}
--@include clock
--@include job
local now = server_time()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', fixed(now - 86400e6))
if settling_ms(KEYS[2], now) > 0 then return { fixed(now), {} } end
return { fixed(now), redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', fixed(now), 'LIMIT', 0, 100) }
