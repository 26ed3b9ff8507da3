-- claim_job: give one fire time of a job to exactly one worker, and the lease with it.
-- KEYS[1] job   KEYS[2] running jobs by end of lease   KEYS[3] ledger
-- ARGV[1] fire time, us   ARGV[2] token   ARGV[3] lease_ms   ARGV[4] holder   ARGV[5] late_ms, -1 never too late
-- ARGV[6] 1: run now, whatever the time
-- returns {word, number}: 'ours' fence | 'early' ms to wait | 'taken' | 'before' (the store is younger) | 'overlap' |
--   'misfire' | 'paused'
--@include job
local job, running = KEYS[1], KEYS[2]
local fire, now = tonumber(ARGV[1]), server_time()
local state = redis.call('HMGET', job, 'last_fire', 'state', 'lease_until', 'paused', 'token', 'fence')
local last, busy = tonumber(state[1]), state[2] == 'claimed' or state[2] == 'running'
if ARGV[6] ~= '1' then
  if fire > now then return {'early', math.ceil((fire - now) / 1000)} end
  if last and fire <= last then return {'taken', 0} end
  local began = tonumber(redis.call('ZSCORE', KEYS[3], '@start') or nil)
  if began and fire < began then return {'before', 0} end
  if state[4] == '1' then
    redis.call('HSET', job, 'last_fire', fixed(fire))
    return {'paused', 0}
  end
end
if busy and tonumber(state[3]) > now then
  redis.call('HINCRBY', job, 'overlaps', 1)
  if ARGV[6] ~= '1' then redis.call('HSET', job, 'last_fire', fixed(fire)) end
  return {'overlap', 0}
end
if ARGV[6] ~= '1' and tonumber(ARGV[5]) >= 0 and now - fire > tonumber(ARGV[5]) * 1000 then
  redis.call('HSET', job, 'last_fire', fixed(fire))
  redis.call('HINCRBY', job, 'misfires', 1)
  return {'misfire', 0}
end
local fence = math.max((tonumber(state[6]) or 0) + 1, now)
redis.call('HSET', job, 'attempt', 1, 'token', ARGV[2], 'fence', fixed(fence), 'state', 'claimed',
  'holder', ARGV[4], 'claimed', fixed(now), 'error', '')
if ARGV[6] ~= '1' then redis.call('HSET', job, 'last_fire', fixed(fire)) end
lease(job, running, now, ARGV[3])
return {'ours', fixed(fence)}
