-- settle_refresh: say what became of an entry that was taken to be loaded.
-- KEYS[1] refreshes   KEYS[2] refresh items   KEYS[3] dead letters   KEYS[4] ids of those that were put back
-- ARGV[1] key   ARGV[2] 'loaded', 'failed' or 'back' (not begun, or not finished: somebody else may)
-- ARGV[3] loaded: the clock of the item that was taken; failed: ms until it is tried again
-- ARGV[4] failed: so many failures, and it is a dead letter   ARGV[5] length of the dead letters   ARGV[6] failed: reason
-- ARGV[7] failed: detail
-- returns 1 it is done with, 0 it stays
--@include redis/clock
--@include bus/engine/shard
--@include bus/engine/refresh_item
local refreshes, items, key, outcome = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local item = parse(redis.call('HGET', items, key))
if not item then return 1 end
local now, due = server_time(), 0
if outcome == 'loaded' then
  -- Another invalidation has asked for it since it was taken: whoever asked then has not been served.
  if item.clock == ARGV[3] then
    forget(refreshes, items, KEYS[4], key)
    return 1
  end
  item.takes = item.fails
elseif outcome == 'failed' then
  item.fails = item.fails + 1
  if item.fails >= tonumber(ARGV[4]) then
    bury_refresh(KEYS[3], KEYS[4], ARGV[5], key, item, item.fails, ARGV[6], ARGV[7])
    forget(refreshes, items, KEYS[4], key)
    return 1
  end
  item.takes = math.max(item.takes, item.fails)
  due = tonumber(ARGV[3]) * 1000
else
  item.takes = math.max(item.fails, item.takes - 1)
end
store(items, key, item)
redis.call('ZADD', refreshes, fixed(now + due), key)
return 0
