-- finish_job: say how a run ended. Safe to repeat.
-- KEYS[1] job   KEYS[2] running jobs by end of lease
-- ARGV[1] token   ARGV[2] outcome: done | failed   ARGV[3] error   ARGV[4] duration, ms   ARGV[5] progress
-- ARGV[6] the error in a line   ARGV[7] how many runs are kept
-- returns 1 noted, 0 it is not ours any more
--@include redis/clock
local job = KEYS[1]
local known = redis.call('HMGET', job, 'token', 'state')
if known[1] ~= ARGV[1] then return 0 end
if known[2] ~= 'running' then return 1 end
local now = fixed(server_time())
local kept = cjson.decode(redis.call('HGET', job, 'history') or '[]')
table.insert(kept, 1, { finished = now, duration_ms = ARGV[4], outcome = ARGV[2], error = ARGV[6],
  holder = redis.call('HGET', job, 'holder') or '' })
while #kept > tonumber(ARGV[7]) do table.remove(kept) end
redis.call('HSET', job, 'state', ARGV[2], 'outcome', ARGV[2], 'error', ARGV[3], 'duration_ms', ARGV[4],
  'progress', ARGV[5], 'finished', now, 'history', cjson.encode(kept))
redis.call('HINCRBY', job, 'runs', 1)
redis.call('ZREM', KEYS[2], job)
return 1
