-- claim_job: give one fire time of a job to exactly one worker, and the lease with it.
-- KEYS[1] job   KEYS[2] running jobs by end of lease   KEYS[3] run of the server   KEYS[4] ledger   KEYS[5] journal
-- ARGV[1] fire time, us; 0: now, by hand, whatever the time   ARGV[2] token (again the same where the reply was lost)
-- ARGV[3] lease, ms   ARGV[4] holder   ARGV[5] how late it may start, ms   ARGV[6] 1: however late, unless it is new
-- ARGV[7] random id, the name of a new era of the ledger should one begin
-- returns {word, number}: 'ours' fence | 'early' ms until it may be asked again | 'dead' reclaim what its worker left |
--   'taken' | 'before' the store is younger than the fire time | 'paused' | 'overlap' | 'misfire' |
--   'new' nobody knew the job when it was due
--@include freshness/ledger
--@include schedules/job
local job, running = KEYS[1], KEYS[2]
local by_hand, now = ARGV[1] == '0', server_time()
local fire = by_hand and now or tonumber(ARGV[1])
local known = redis.call('HMGET', job, 'last_fire', 'state', 'lease_until', 'paused', 'token', 'fence')
local last, state = tonumber(known[1]), known[2]
local busy = state == 'claimed' or state == 'running'
if state == 'claimed' and known[5] == ARGV[2] then
  lease(job, running, now, ARGV[3])
  return { 'ours', known[6] }
end
if not by_hand then
  if fire > now then return { 'early', math.ceil((fire - now) / 1000) } end
  if last and fire <= last then return { 'taken', 0 } end
  local settling = settling_ms(KEYS[3], now)
  if settling > 0 then return { 'early', settling } end
  -- A store that knows the job has not forgotten it: its ledger may be younger than the last fire time (a new era).
  if not last then
    open_ledger(KEYS[4], KEYS[5], ARGV[7])
    if fire < tonumber(redis.call('ZSCORE', KEYS[4], '@start') or 0) then
      redis.call('HSET', job, 'last_fire', fixed(fire))
      return { 'before', 0 }
    end
  end
end
if busy and tonumber(known[3]) <= now then return { 'dead', 0 } end
if not by_hand then redis.call('HSET', job, 'last_fire', fixed(fire)) end
if is_paused(known[4], now) and not by_hand then return { 'paused', 0 } end
if busy then
  redis.call('HINCRBY', job, 'overlaps', 1)
  return { 'overlap', 0 }
end
if now - fire > tonumber(ARGV[5]) * 1000 then
  if not last then return { 'new', 0 } end
  if ARGV[6] == '0' then
    redis.call('HINCRBY', job, 'misfires', 1)
    return { 'misfire', 0 }
  end
end
local fence = fixed(math.max((tonumber(known[6]) or 0) + 1, now))
redis.call('HSET', job, 'state', 'claimed', 'fire', fixed(fire), 'attempt', 0, 'token', ARGV[2], 'fence', fence,
  'holder', ARGV[4], 'claimed', fixed(now), 'error', '', 'progress', '', 'marks', '')
lease(job, running, now, ARGV[3])
return { 'ours', fence }
