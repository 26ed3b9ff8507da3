-- start_recording: ask all processes to record, unless somebody's recording runs.
-- KEYS[1] recording
-- ARGV[1] what is wanted, JSON   ARGV[2] ms it lasts unless it is renewed
-- returns '' begun, or what is wanted already
local recording = KEYS[1]
local running = redis.call('HGET', recording, 'wanted')
if running then
  return running
end
redis.call('HSET', recording, 'wanted', ARGV[1], 'bytes', 0, 'sampled', 0)
redis.call('PEXPIRE', recording, ARGV[2])
return ''
