-- reclaim_job: a lease has ended without a word: start the run once more, or note the death.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] lease_ms   ARGV[3] holder   ARGV[4] most attempts
-- returns {word, number}: 'ours' fence | 'died' | 'alive'
--@include job
local job, running, now = KEYS[1], KEYS[2], server_time()
local state = redis.call('HMGET', job, 'state', 'lease_until', 'attempt', 'fence')
if state[1] ~= 'claimed' and state[1] ~= 'running' then
  redis.call('ZREM', running, job)
  return {'alive', 0}
end
if tonumber(state[2]) > now then return {'alive', 0} end
redis.call('HINCRBY', job, 'deaths', 1)
if tonumber(state[3]) >= tonumber(ARGV[4]) then
  redis.call('HSET', job, 'state', 'died', 'token', '', 'finished', fixed(now), 'outcome', 'died')
  redis.call('ZREM', running, job)
  return {'died', 0}
end
local fence = math.max(tonumber(state[4]) + 1, now)
redis.call('HSET', job, 'attempt', tonumber(state[3]) + 1, 'token', ARGV[1], 'fence', fixed(fence),
  'state', 'claimed', 'holder', ARGV[3], 'claimed', fixed(now))
lease(job, running, now, ARGV[2])
return {'ours', fixed(fence)}
