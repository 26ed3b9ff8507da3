-- release_job: hand a run back: its lease ends now, nobody died, and another worker need not wait.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] progress   ARGV[3] marks
-- returns 1 handed back, 0 it is not ours any more
--@include redis/clock
local job = KEYS[1]
local known = redis.call('HMGET', job, 'token', 'state')
if known[1] ~= ARGV[1] or (known[2] ~= 'claimed' and known[2] ~= 'running') then return 0 end
local now = fixed(server_time())
redis.call('HSET', job, 'token', '', 'holder', '', 'lease_until', now, 'progress', ARGV[2], 'marks', ARGV[3])
redis.call('ZADD', KEYS[2], now, job)
return 1
