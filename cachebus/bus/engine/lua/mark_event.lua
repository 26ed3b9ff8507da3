-- mark_event: note that an event or retry is about to be run, before it is.
-- KEYS[1] lease   KEYS[2] marks
-- ARGV[1] token   ARGV[2] event
-- returns how many others had it in hand and ended without a word, -1 the shard is not the caller's
--@include bus/engine/marks
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return mark(KEYS[2], ARGV[2], ARGV[1])
