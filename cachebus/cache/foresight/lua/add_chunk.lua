-- add_chunk: add what one process recorded, as long as the recording runs and has room.
-- KEYS[1] recording   KEYS[2] its chunks, a stream
-- ARGV[1] what is wanted, JSON   ARGV[2] the chunk   ARGV[3] sampled reads in it   ARGV[4] most bytes   ARGV[5] TTL of the stream, s
-- returns 1 added, 0 where it ended, -1 where it is full
local recording, chunks = KEYS[1], KEYS[2]
if redis.call('HGET', recording, 'wanted') ~= ARGV[1] then
  return 0
end
local size = tonumber(redis.call('HGET', recording, 'bytes')) + #ARGV[2]
if size > tonumber(ARGV[4]) then
  return -1
end
redis.call('XADD', chunks, '*', 'chunk', ARGV[2])
redis.call('EXPIRE', chunks, ARGV[5])
redis.call('HSET', recording, 'bytes', size)
redis.call('HINCRBY', recording, 'sampled', ARGV[3])
return 1
