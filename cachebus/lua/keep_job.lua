-- keep_job: step from claimed to running, renew the lease, or finish; only for whoever holds the token.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] lease_ms   ARGV[3] step: start | renew | done | failed   ARGV[4] error   ARGV[5] duration_ms
-- ARGV[6] progress, '' leaves it
-- returns 1 done, 0 the token is not ours any more, or the run was started already
--@include job
local job, running, step, now = KEYS[1], KEYS[2], ARGV[3], server_time()
local state = redis.call('HMGET', job, 'token', 'state')
if state[1] ~= ARGV[1] then return 0 end
if step == 'start' and state[2] ~= 'claimed' then return 0 end
if ARGV[6] ~= '' then redis.call('HSET', job, 'progress', ARGV[6]) end
if step == 'done' or step == 'failed' then
  redis.call('HSET', job, 'state', step, 'token', '', 'finished', fixed(now), 'outcome', step, 'error', ARGV[4],
    'duration_ms', ARGV[5])
  redis.call('HINCRBY', job, 'runs', 1)
  redis.call('ZREM', running, job)
  return 1
end
if step == 'start' then redis.call('HSET', job, 'state', 'running', 'started', fixed(now)) end
lease(job, running, now, ARGV[2])
return 1
