-- look_at_timeline: what was handled, invalidated and broadcast since the last look, at one moment: a commit is in it
-- whole or not at all.
-- KEYS[1] journal   KEYS[2] feed   KEYS[3..] events, shard of each shard
-- ARGV[1] most records of each   ARGV[2] last id seen in the journal, '-' for none   ARGV[3] the same of the feed
-- ARGV[4..] last position seen in each shard
-- returns {journal records, feed records, {position, event records} of each shard}, each newest first
local most = ARGV[1]
local function since(stream, newest, last)
  if last ~= '-' then last = '(' .. last end
  return redis.call('XREVRANGE', stream, newest, last, 'COUNT', most)
end
local found = { since(KEYS[1], '+', ARGV[2]), since(KEYS[2], '+', ARGV[3]) }
for at = 3, #KEYS, 2 do
  local position = redis.call('HGET', KEYS[at + 1], 'position') or '0-0'
  local last = ARGV[4 + (at - 3) / 2]
  local records = {}
  if position ~= last and position ~= '0-0' then records = since(KEYS[at], position, last) end
  found[#found + 1] = { position, records }
end
return found
