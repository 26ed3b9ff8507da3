-- append_plain: put plain messages into the events, each once, whichever bridges heard them.
-- A message's name is the last marker heard before it, its channel, and its number on that channel since. Every bridge
-- appends in order, so all that needs to be known of a marker is the highest number of each channel.
-- KEYS[1] numbers of the marker   KEYS[2..] events of each shard
-- ARGV[1] how long the numbers are kept, ms   ARGV[2] most events in the stream   ARGV[3] marker
-- ARGV[4..] fours: shard, channel, number, payload
-- returns {how many messages are dealt with, how many of them were new}; fewer than given: the stream is full
local numbers, most, marker = KEYS[1], tonumber(ARGV[2]), ARGV[3]
local done, new = 0, 0
for i = 4, #ARGV, 4 do
  local events, channel, number = KEYS[2 + tonumber(ARGV[i])], ARGV[i + 1], tonumber(ARGV[i + 2])
  if number > tonumber(redis.call('HGET', numbers, channel) or 0) then
    if redis.call('XLEN', events) >= most then break end
    redis.call('XADD', events, '*', 'channel', channel, 'payload', ARGV[i + 3], 'id',
      'plain:' .. marker .. ':' .. ARGV[i + 2], 'by', 'plain PUBLISH')
    redis.call('HSET', numbers, channel, number)
    new = new + 1
  end
  done = done + 1
end
redis.call('PEXPIRE', numbers, ARGV[1])
return { done, new }
