-- start_job: the step right before the body: refused to whoever was replaced since the claim. Safe to repeat.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] lease, ms
-- returns 1 start, 0 somebody else has it
--@include redis/clock
--@include schedules/job
local job, now = KEYS[1], server_time()
local known = redis.call('HMGET', job, 'token', 'state')
if known[1] ~= ARGV[1] then return 0 end
if known[2] == 'claimed' then
  redis.call('HSET', job, 'state', 'running', 'started', fixed(now))
  redis.call('HINCRBY', job, 'attempt', 1)
elseif known[2] ~= 'running' then
  return 0
end
lease(job, KEYS[2], now, ARGV[2])
return 1
