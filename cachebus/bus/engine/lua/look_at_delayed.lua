-- look_at_delayed: return the delayed events that are due, the first ones first. Changes nothing but what is no event.
-- KEYS[1] delayed   KEYS[2] delayed items
-- ARGV[1] at most so many events   ARGV[2] no further one after so many bytes
-- returns {ms until the next is due or -1, id, event, id, ...}
--@include redis/clock
--@include bus/engine/shard
local now, bytes = server_time(), 0
local reply = { -1 }
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', fixed(now), 'LIMIT', 0, ARGV[1])) do
  local item = redis.call('HGET', KEYS[2], id)
  if item then
    reply[#reply + 1] = id
    reply[#reply + 1] = item
    bytes = bytes + #item
    if bytes >= tonumber(ARGV[2]) then break end
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
reply[1] = next_due(KEYS[1])
return reply
