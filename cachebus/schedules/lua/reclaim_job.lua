-- reclaim_job: a lease has ended without a word: give the same fire time to another worker, or let it be.
-- A run that was claimed and never started does not count as a start.
-- KEYS[1] job   KEYS[2] running jobs by end of lease   KEYS[3] run of the server
-- ARGV[1] token   ARGV[2] lease, ms   ARGV[3] holder   ARGV[4] most starts of one fire time
-- returns {word, fence, fire time, marks}: 'ours' | 'died' it is not started again | 'alive' nothing to do
--@include redis/clock
--@include schedules/job
local job, running, now = KEYS[1], KEYS[2], server_time()
local known = redis.call('HMGET', job, 'state', 'lease_until', 'attempt', 'fence', 'holder', 'paused', 'fire', 'marks')
if known[1] ~= 'claimed' and known[1] ~= 'running' then
  redis.call('ZREM', running, job)
  return { 'alive', '0', '0', '' }
end
if tonumber(known[2]) > now or settling_ms(KEYS[3], now) > 0 then return { 'alive', '0', '0', '' } end
if known[5] ~= '' then redis.call('HINCRBY', job, 'deaths', 1) end
if tonumber(known[3]) >= tonumber(ARGV[4]) or is_paused(known[6], now) then
  local outcome = known[5] == '' and 'cancelled' or 'died'
  redis.call('HSET', job, 'state', outcome, 'outcome', outcome, 'token', '', 'finished', fixed(now), 'duration_ms', 0)
  redis.call('ZREM', running, job)
  return { 'died', '0', known[7], '' }
end
local fence = fixed(math.max(tonumber(known[4]) + 1, now))
redis.call('HSET', job, 'state', 'claimed', 'token', ARGV[1], 'fence', fence, 'holder', ARGV[3], 'claimed', fixed(now))
lease(job, running, now, ARGV[2])
return { 'ours', fence, known[7], known[8] or '' }
