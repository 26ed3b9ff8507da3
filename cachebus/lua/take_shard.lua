-- take_shard: become the one who handles a shard's events, if nobody is.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] events   KEYS[4] retries   KEYS[5] marks
-- KEYS[6] contenders, KEYS[7..] leases of every shard: where there are several
-- ARGV[1] token (again the same where the reply was lost)   ARGV[2] lease, ms   ARGV[3] token the caller held before,
--   '' none: its lease, if it still stands, is the caller's, and the caller lives, so nothing killed it
-- ARGV[4] worker
-- returns {0, ms left of the holder's lease, or 0: it is free, but the caller has its share}, or {1, position, commits, 1 the owner before ended without giving the shard
--   back, the newest event it may have had in hand then or '', ms until the next retry or -1, 1 the stream began anew,
--   events waiting}
--@include clock
--@include marks
--@include shard
--@include share
local lease, shard, events = KEYS[1], KEYS[2], KEYS[3]
if ARGV[3] ~= '' then unmark(KEYS[5], ARGV[3]) end
local holder = redis.call('GET', lease)
local fair, held = 1, 0
if KEYS[6] then fair, held = share(KEYS[6], 7, #KEYS - 6, ARGV[4], server_time()) end
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return { 0, redis.call('PTTL', lease) } end
if held >= fair and not holder then return { 0, 0 } end
local owner = redis.call('HGET', shard, 'owner') or ''
local position = redis.call('HGET', shard, 'position') or '0-0'
local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
local died = owner ~= '' and owner ~= ARGV[1] and owner ~= ARGV[3]
local careful = died and newest and newest[1] or ''
redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
redis.call('HSET', shard, 'owner', ARGV[1])
local anew = newest and earlier(newest[1], position)
if anew then
  -- Deleted and written anew under a clock that is behind: waiting for later ids would be waiting for ever.
  position = '0-0'
  redis.call('HSET', shard, 'position', position, 'behind', 0)
end
local commits = tonumber(redis.call('HGET', shard, 'commits') or 0)
return { 1, position, commits, died and 1 or 0, careful, next_due(KEYS[4]), anew and 1 or 0, waiting(shard, events) }
