-- take_shard: become the one who handles a shard's events, if nobody is.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] events   KEYS[4] retries   KEYS[5] marks
-- KEYS[6] windows   KEYS[7] contenders, KEYS[8..] leases of every shard: where there are several
-- ARGV[1] token (again the same where the reply was lost)   ARGV[2] lease, ms   ARGV[3] token the caller held before,
--   '' none: its lease, if it still stands, is the caller's, and the caller lives, so nothing killed it
-- ARGV[4] worker
-- returns {0, ms left of the holder's lease, or 0: it is free, but the caller has its share}, or {1, position, commits,
--   up to which event each is to be marked before it runs, or '': an owner ended without giving the shard back,
--   ms until the next retry is due or window closes or -1, 1 the stream began anew, events waiting}
--@include redis/clock
--@include bus/engine/marks
--@include bus/engine/shard
--@include bus/engine/windows
--@include bus/engine/share
-- So many events an owner runs side by side. Of a longer backlog it cannot be told what ended it.
local IN_HAND = 16
local lease, shard, events = KEYS[1], KEYS[2], KEYS[3]
if ARGV[3] ~= '' then unmark(KEYS[5], ARGV[3]) end
local holder = redis.call('GET', lease)
local fair, held = 1, 0
if KEYS[7] then fair, held = share(KEYS[7], 8, #KEYS - 7, ARGV[4], server_time()) end
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return { 0, redis.call('PTTL', lease) } end
if held >= fair and not holder then return { 0, 0 } end
local owner = redis.call('HGET', shard, 'owner') or ''
local position = redis.call('HGET', shard, 'position') or '0-0'
local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
local ours = owner ~= '' and (owner == ARGV[1] or owner == ARGV[3])
local died = owner ~= '' and not ours
local was = redis.call('HGET', shard, 'careful') or ''
local careful = ours and was or ''
if died then careful = newest and newest[1] or '0-0' end
redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
redis.call('HSET', shard, 'owner', ARGV[1], 'careful', careful)
if far_ahead(position) and not (newest and earlier(position, newest[1])) then
  -- Everything in the stream is handled, and its next id would be far ahead, too: let it begin again.
  redis.call('DEL', events)
  position = '0-0'
  redis.call('HSET', shard, 'position', position, 'behind', 0)
  newest = nil
end
local anew = newest and earlier(newest[1], position)
if anew then
  -- Deleted and written anew under a clock that is behind: waiting for later ids would be waiting for ever.
  position = '0-0'
  redis.call('HSET', shard, 'position', position, 'behind', 0)
end
if died then
  -- An owner that was careful has marked what ended it. Of any other all that it may have had in hand is to blame.
  if was == '' or not earlier(position, was) then
    for _, event in ipairs(redis.call('XRANGE', events, '(' .. position, '+', 'COUNT', IN_HAND)) do
      mark(KEYS[5], event[1], owner)
    end
  end
  if was == '' then
    local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', fixed(server_time()), 'LIMIT', 0, IN_HAND)
    for _, name in ipairs(due) do mark(KEYS[5], name, owner) end
  end
end
local commits = tonumber(redis.call('HGET', shard, 'commits') or 0)
local next_ms = next_run(KEYS[4], KEYS[6], shard, events)
return { 1, position, commits, careful, next_ms, anew and 1 or 0, waiting(shard, events) }
