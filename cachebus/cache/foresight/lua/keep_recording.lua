-- keep_recording: renew a recording that is still this one, or end it.
-- KEYS[1] recording
-- ARGV[1] what is wanted, JSON   ARGV[2] ms it lasts from now, 0 ends it
-- returns reads recorded so far, -1 where it ended
local recording = KEYS[1]
if redis.call('HGET', recording, 'wanted') ~= ARGV[1] then
  return -1
end
local sampled = tonumber(redis.call('HGET', recording, 'sampled'))
if ARGV[2] == '0' then
  redis.call('DEL', recording)
else
  redis.call('PEXPIRE', recording, ARGV[2])
end
return sampled
