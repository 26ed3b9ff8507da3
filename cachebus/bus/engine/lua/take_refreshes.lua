-- take_refreshes: take entries to be loaded; taking counts, so that a load that ends its process is counted too.
-- An item is the clock it must be born at, how often it was taken, how often it failed, its view and its arguments,
-- one a line. Taken, it is due again when its taker should have been heard of.
-- KEYS[1] refreshes   KEYS[2] refresh items   KEYS[3] dead letters   KEYS[4] ids of those that were put back
-- ARGV[1] at most   ARGV[2] how long a taker may be silent, ms   ARGV[3] so many silent takers, and it is a dead letter
-- ARGV[4] length of the dead letters
-- returns {ms until the next is due or -1, how many became dead letters, key, clock, failures, view, arguments, traceparent or '', key, ...}
--@include redis/clock
--@include bus/engine/shard
--@include bus/engine/refresh_item
local refreshes, items = KEYS[1], KEYS[2]
local now = server_time()
local reply, buried = { -1, 0 }, 0
for _, key in ipairs(redis.call('ZRANGEBYSCORE', refreshes, '-inf', fixed(now), 'LIMIT', 0, ARGV[1])) do
  local item = parse(redis.call('HGET', items, key))
  if item and item.takes - item.fails >= tonumber(ARGV[3]) then
    bury_refresh(KEYS[3], KEYS[4], ARGV[4], key, item, item.takes, 'poison: ' .. (item.takes - item.fails)
      .. ' processes ended or fell silent while they loaded it', '')
    forget(refreshes, items, KEYS[4], key)
    buried = buried + 1
  elseif item then
    item.takes = item.takes + 1
    store(items, key, item)
    redis.call('ZADD', refreshes, fixed(now + tonumber(ARGV[2]) * 1000), key)
    for _, part in ipairs({ key, item.clock, item.fails, item.view, item.arguments, item.trace or '' }) do
      reply[#reply + 1] = part
    end
  else
    redis.call('ZREM', refreshes, key)
  end
end
reply[1], reply[2] = next_due(refreshes), buried
return reply
