-- greet_jobs: on a new connection, tell the server what it may have forgotten: fire times that were taken.
-- The first worker that meets another run of the server notes when: nothing is given away for a moment (job.lua).
-- KEYS[1] run of the server   KEYS[2..] jobs
-- ARGV[1] id of the run   ARGV[2..] newest fire time of each job that the caller knows was taken, us
-- returns how many of them the server did not know
--@include clock
local id = redis.call('HGET', KEYS[1], 'id')
if id ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'changed', id and fixed(server_time()) or 0)
end
local forgotten = 0
for i = 2, #KEYS do
  local last = tonumber(redis.call('HGET', KEYS[i], 'last_fire') or 0)
  if last < tonumber(ARGV[i]) then
    redis.call('HSET', KEYS[i], 'last_fire', fixed(tonumber(ARGV[i])))
    forgotten = forgotten + 1
  end
end
return forgotten
