-- greet_jobs: on a new connection, tell the server what it may have forgotten: fire times that were taken.
-- The first worker that meets another run of the server notes when: nothing is given away for a moment (job.lua). Which
-- run it is, the ledger knows: a cache vouches for it on the same connection before (vouch.lua).
-- KEYS[1] run of the server   KEYS[2] ledger   KEYS[3..] jobs
-- ARGV[1..] newest fire time of each job that the caller knows was taken, us
-- returns how many of them the server did not know
--@include clock
local run, vouched = KEYS[1], ''
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', 0)) do
  if string.sub(member, 1, 4) == '@id:' then vouched = member end
end
local known = redis.call('HGET', run, 'id')
if known ~= vouched then
  redis.call('HSET', run, 'id', vouched, 'changed', known and fixed(server_time()) or 0)
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
