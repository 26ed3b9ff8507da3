-- publish: append an event unless its id is known, and tell plain listeners.
-- KEYS[1] events   KEYS[2] mark of the id
-- ARGV[1] how long the id stays known, ms   ARGV[2] most events in the stream   ARGV[3] channel of the skip notices
-- ARGV[4] channel   ARGV[5] payload   ARGV[6] id   ARGV[7..] further fields: name, value
-- returns 1 appended, 0 the id is known (and stays known as long again), -1 the stream is full and nothing was done
--@include announce
-- A write even then: WAIT, on a connection that did not make the first attempt, waits for this one.
if redis.call('PEXPIRE', KEYS[2], ARGV[1]) == 1 then return 0 end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return -1 end
local channel, payload = ARGV[4], ARGV[5]
redis.call('XADD', KEYS[1], '*', 'channel', channel, 'payload', payload, 'id', ARGV[6], unpack(ARGV, 7))
redis.call('SET', KEYS[2], 1, 'PX', ARGV[1])
announce(ARGV[3], channel, payload)
return 1
