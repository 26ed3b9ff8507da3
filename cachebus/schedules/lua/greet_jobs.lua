-- greet_jobs: on a new connection, tell the server what it may have forgotten: fire times that were taken.
-- The first worker that meets another run of the server notes when: nothing is given away for a moment (job.lua). Which
-- run it is, the ledger knows: the handshake of the cache wrote it on the same connection before (open.lua).
-- KEYS[1] run of the server   KEYS[2] ledger   KEYS[3..] jobs
-- ARGV[1..] newest fire time of each job that the caller knows was taken, us
-- returns how many of them the server did not know
--@include redis/clock
local run, present = KEYS[1], redis.call('ZRANGEBYSCORE', KEYS[2], -2, -2)[1] or ''
local known = redis.call('HGET', run, 'id')
if known ~= present then
  redis.call('HSET', run, 'id', present, 'changed', known and fixed(server_time()) or 0)
end
local forgotten = 0
for i, fire in ipairs(ARGV) do
  local last = tonumber(redis.call('HGET', KEYS[i + 2], 'last_fire') or 0)
  if last < tonumber(fire) then
    redis.call('HSET', KEYS[i + 2], 'last_fire', fire)
    forgotten = forgotten + 1
  end
end
return forgotten
