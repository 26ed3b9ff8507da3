-- move_delayed: publish delayed events that are due, as `publish` does. What was cancelled, delayed anew or moved by
-- another worker since it was looked at is passed over, so each is published once, whoever moves it.
-- KEYS[1] delayed   KEYS[2] delayed items   KEYS[3..] events of each shard
-- ARGV[1] most events in a stream   ARGV[2] channel of the skip notices
-- ARGV[3..] of each event: id, shard, channel, payload, number of further values, then these: name, value, …
-- returns {how many were moved, 1 a stream was full: the rest stays}
--@include redis/clock
--@include bus/announce
local delayed, items, now = KEYS[1], KEYS[2], server_time()
local moved, at = 0, 3
while at <= #ARGV do
  local id, events = ARGV[at], KEYS[3 + tonumber(ARGV[at + 1])]
  local channel, payload, last = ARGV[at + 2], ARGV[at + 3], at + 4 + tonumber(ARGV[at + 4])
  local due = tonumber(redis.call('ZSCORE', delayed, id) or '')
  if due and due <= now then
    if redis.call('XLEN', events) >= tonumber(ARGV[1]) then return { moved, 1 } end
    local added = redis.pcall('XADD', events, '*', 'channel', channel, 'payload', payload, 'id', id,
      unpack(ARGV, at + 5, last))
    if type(added) == 'table' and added.err then
      if string.find(added.err, 'exhausted') then return { moved, 1 } end
      return redis.error_reply(added.err)
    end
    redis.call('ZREM', delayed, id)
    redis.call('HDEL', items, id)
    announce(ARGV[2], channel, payload)
    moved = moved + 1
  end
  at = last + 1
end
return { moved, 0 }
