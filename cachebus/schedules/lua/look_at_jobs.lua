-- look_at_jobs: what time is it, and whose lease has ended?
-- Where nobody has looked for a while, leases could not be renewed either, and their end says nothing. A lease that ended
-- a day ago belongs to a job that no worker knows any more.
-- KEYS[1] running jobs by end of lease   KEYS[2] run of the server
-- returns {server time, us, {jobs whose lease has ended}}
--@include redis/clock
--@include schedules/job
local running, run, now = KEYS[1], KEYS[2], server_time()
local looked = tonumber(redis.call('HGET', run, 'looked'))
if looked and now - looked > SETTLING_US then redis.call('HSET', run, 'changed', fixed(now)) end
if not looked or now - looked > 0.5e6 then redis.call('HSET', run, 'looked', fixed(now)) end
redis.call('ZREMRANGEBYSCORE', running, '-inf', fixed(now - 86400e6))
if settling_ms(run, now) > 0 then return { fixed(now), {} } end
return { fixed(now), redis.call('ZRANGEBYSCORE', running, '-inf', fixed(now), 'LIMIT', 0, 100) }
