-- commit: write what a batch of events leads to, and the position it moves the shard to: all of it, or nothing.
-- Whoever does not hold the shard writes nothing; the same commit sent twice is written once.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] events   KEYS[4] ledger   KEYS[5] journal   KEYS[6] feed
-- KEYS[7] retries   KEYS[8] retry items   KEYS[9] dead letters   KEYS[10] refreshes   KEYS[11] refresh items
-- KEYS[12] marks   KEYS[13] windows   KEYS[14] window items   KEYS[15] delayed   KEYS[16] delayed items
-- KEYS[17] ids of the dead letters that were put back   KEYS[18..] events of each shard, where the batch publishes
-- ARGV[1] token   ARGV[2] number of this commit   ARGV[3] position before   ARGV[4] position after, or the same
-- ARGV[5] events between the two   ARGV[6] lease, ms   ARGV[7] random id, the name of a new era should one begin
-- ARGV[8] how long handled events are kept, us   ARGV[9] most events in the stream before handled ones go at once
-- ARGV[10] length of the feed   ARGV[11] length of the dead letters   ARGV[12] channel of skip notices
-- ARGV[13] channel that wakes refreshers   ARGV[14] channel that wakes movers   ARGV[15..25] how many of each of:
--   scope | topic\nmessage | key, view\narguments, or with \ntraceparent | retry, delay ms, item | retry, delay ms | retry done
--   | dead letter: kind, channel, payload, handler, attempts, reason, detail, id, key, position,
--     id of the letter it was before
--   | shard, channel, payload, id, key, timestamp, signature, traceparent, by | mark
--   | window: name, first and newest event, ms, quiet and most, ms, run | delayed: id, delay ms, item
-- ARGV[last] causes of the scopes, JSON (freshness/cause.py)
-- returns {1 written or 2 it was written before, clock '<us>.<era>', server time us, events waiting,
--          ms until the next retry is due or window closes or -1, 1 the record at the position before is gone,
--          how many messages this user may not PUBLISH}, or {0} not the holder
--@include freshness/ledger
--@include bus/announce
--@include bus/delayed
--@include bus/engine/shard
--@include bus/engine/windows
local lease, shard, events, ledger, journal, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local retries, retry_items, letters, refreshes, refresh_items = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local marks, windows, window_items, delayed, delayed_items = KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local letter_ids = KEYS[17]
local before, after = ARGV[3], ARGV[4]

-- 1. Everything that can fail or refuse, while nothing is written. Ledger and journal begin anew where they are wrong.
for i, kind in ipairs({ 'string', 'hash', 'stream', 'any', 'any', 'stream', 'zset', 'hash', 'stream', 'zset', 'hash',
  'hash', 'zset', 'hash', 'zset', 'hash', 'hash' }) do
  local found = kind ~= 'any' and redis.call('TYPE', KEYS[i]) or 'none'
  found = type(found) == 'table' and found.ok or found
  if found ~= kind and found ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' holds a ' .. found .. ', not a ' .. kind)
  end
end
if redis.call('GET', lease) ~= ARGV[1] then return { 0 } end
local clock, era = open_ledger(ledger, journal, ARGV[7])
local number = tonumber(redis.call('HGET', shard, 'commits') or 0)
if number == tonumber(ARGV[2]) then
  return { 2, fixed(clock) .. '.' .. era, fixed(server_time()), waiting(shard, events),
    next_run(retries, windows, shard, events), 0, 0 }
end
if number ~= tonumber(ARGV[2]) - 1 or (redis.call('HGET', shard, 'position') or '0-0') ~= before then return { 0 } end

local now = server_time()
local gone = after ~= before and before ~= '0-0' and #redis.call('XRANGE', events, before, before) == 0
local scopes = tonumber(ARGV[15])
local unheard = 0
local at = 26

-- 2. The streams first: where an XADD is refused (no memory), nothing has changed.
if scopes > 0 then
  local refused
  clock, refused, era = invalidate(ledger, journal, ARGV[7], ARGV, at, at + scopes - 1, '', ARGV[#ARGV])
  if not clock then return refused end
  at = at + scopes
end
local fresh = fixed(clock) .. '.' .. era

local broadcasts = tonumber(ARGV[16])
if broadcasts > 0 then
  local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
  local tick, previous, epoch = 0, '', nil
  if newest then
    tick = tonumber(string.match(newest[1], '^(%d+)'))
    for i = 1, #newest[2], 2 do
      if newest[2][i] == 'record' then epoch = string.match(newest[2][i + 1], '^{"id":"(%d+)%-') end
    end
    previous = epoch and (epoch .. '-' .. fixed(tick)) or ''
  end
  epoch = epoch or fixed(now)
  if far_ahead(fixed(tick / 1000)) then -- a foreign record: the feed begins again, under a new epoch
    redis.call('DEL', feed)
    tick, previous, epoch = 0, '', fixed(now)
  end
  local head = '","ts":' .. fixed(math.floor(now / 1000)) .. ',"fresh_after":"' .. fresh .. '",'
  tick = math.max(tick, now - 1)
  for i = at, at + broadcasts - 1 do
    local line = string.find(ARGV[i], '\n', 1, true)
    local topic = string.sub(ARGV[i], 1, line - 1)
    tick = tick + 1
    local stamp = fixed(tick)
    local id = epoch .. '-' .. stamp
    local message = '{"id":"' .. id .. head .. string.sub(ARGV[i], line + 2)
    if not add(feed, stamp .. '-0', 'before', previous, 'topic', topic, 'record', message) then
      redis.call('DEL', feed) -- its last id is ahead of what it holds
      redis.call('XADD', feed, stamp .. '-0', 'before', '', 'topic', topic, 'record', message)
    end
    unheard = unheard + say('ws:' .. topic, message)
    previous = id
  end
  redis.call('XTRIM', feed, 'MAXLEN', '~', ARGV[10])
  at = at + broadcasts
end

-- 3. Work for later.
local due = fixed(now)
local refreshed = tonumber(ARGV[17])
for i = 1, refreshed do
  redis.call('HSET', refresh_items, ARGV[at], fresh .. '\n0\n0\n' .. ARGV[at + 1])
  redis.call('ZADD', refreshes, 'NX', due, ARGV[at])
  at = at + 2
end
if refreshed > 0 then unheard = unheard + say(ARGV[13], refreshed) end
for i = 1, tonumber(ARGV[18]) do
  redis.call('HSET', retry_items, ARGV[at], ARGV[at + 2])
  redis.call('ZADD', retries, fixed(now + tonumber(ARGV[at + 1]) * 1000), ARGV[at])
  at = at + 3
end
for i = 1, tonumber(ARGV[19]) do
  redis.call('ZADD', retries, 'XX', fixed(now + tonumber(ARGV[at + 1]) * 1000), ARGV[at])
  at = at + 2
end
for i = 1, tonumber(ARGV[20]) do
  redis.call('ZREM', retries, ARGV[at])
  redis.call('HDEL', retry_items, ARGV[at])
  at = at + 1
end
for i = 1, tonumber(ARGV[21]) do
  bury(letters, letter_ids, ARGV[11], ARGV, at)
  at = at + 11
end
if gone then
  bury(letters, letter_ids, ARGV[11], { 'gap', '', '', '', 0, 'the record at position ' .. before .. ' is gone: somebody else '
    .. 'trimmed the stream, and events that were not handled may be gone with it', '', '', '', before }, 1)
end
for _ = 1, tonumber(ARGV[22]) do
  local channel, payload = ARGV[at + 1], ARGV[at + 2]
  local fields = { 'channel', channel, 'payload', payload, 'id', ARGV[at + 3] }
  for i, name in ipairs({ 'key', 'timestamp', 'signature', 'traceparent', 'by' }) do
    if ARGV[at + 3 + i] ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = ARGV[at + 3 + i]
    end
  end
  if add(KEYS[18 + tonumber(ARGV[at])], '*', unpack(fields)) then
    unheard = unheard + announce(ARGV[12], channel, payload)
  else
    bury(letters, letter_ids, ARGV[11], { 'unfit', channel, payload, '', 0, 'the stream has no ids left: a foreign XADD used the '
      .. 'last one; publish it again', '', ARGV[at + 3], ARGV[at + 4], '' }, 1)
  end
  at = at + 9
end
for i = 1, tonumber(ARGV[23]) do
  redis.call('HDEL', marks, ARGV[at])
  at = at + 1
end
for i = 1, tonumber(ARGV[24]) do
  local first, newest = math.min(now, tonumber(ARGV[at + 1]) * 1000), math.min(now, tonumber(ARGV[at + 2]) * 1000)
  debounce(windows, window_items, ARGV[at], first, newest, tonumber(ARGV[at + 3]) * 1000, tonumber(ARGV[at + 4]) * 1000,
    ARGV[at + 5])
  at = at + 6
end
for i = 1, tonumber(ARGV[25]) do
  if not redis.call('HGET', delayed_items, ARGV[at]) then
    delay(delayed, delayed_items, ARGV[at], now + tonumber(ARGV[at + 1]) * 1000, ARGV[at + 2], ARGV[14])
  end
  at = at + 3
end

-- 4. The position; the lease; and what nobody needs any more, never the record at the position.
redis.call('HSET', shard, 'position', after, 'commits', ARGV[2])
redis.call('HINCRBY', shard, 'behind', ARGV[5])
redis.call('PEXPIRE', lease, ARGV[6])
if after ~= before then
  local kept = math.floor((now - tonumber(ARGV[8])) / 1000)
  local reached = tonumber(string.match(after, '^(%d+)'))
  local first = after
  if kept < reached and redis.call('XLEN', events) < tonumber(ARGV[9]) then first = fixed(kept) .. '-0' end
  local trimmed = redis.call('XTRIM', events, 'MINID', '~', first)
  if trimmed > 0 then redis.call('HINCRBY', shard, 'behind', -trimmed) end
end
prune(ledger)
return { 1, fresh, fixed(now), waiting(shard, events), next_run(retries, windows, shard, events),
  gone and 1 or 0, unheard }
