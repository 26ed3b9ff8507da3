-- Shared by the scripts of delayed events: a sorted set, id -> when the event is due, us, and a hash, id -> event.
-- Needs bus/announce.

-- Keeps an event until it is due. Whoever publishes delayed events sleeps until the first one they know of.
local function delay(delayed, items, id, due, item, wakes)
  redis.call('HSET', items, id, item)
  redis.call('ZADD', delayed, fixed(due), id)
  if redis.call('ZRANGE', delayed, 0, 0)[1] == id then say(wakes, id) end
end
