-- renew_job: keep the lease of a run, and say how far it has come.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] lease, ms   ARGV[3] progress   ARGV[4] marks
-- returns 1 kept, 0 it is not ours any more
--@include redis/clock
--@include schedules/job
local job = KEYS[1]
local known = redis.call('HMGET', job, 'token', 'state')
if known[1] ~= ARGV[1] or (known[2] ~= 'claimed' and known[2] ~= 'running') then return 0 end
redis.call('HSET', job, 'progress', ARGV[3], 'marks', ARGV[4])
lease(job, KEYS[2], server_time(), ARGV[2])
return 1
