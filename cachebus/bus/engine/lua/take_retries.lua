-- take_retries: take what is due; taking counts as an attempt, so that what kills its process is counted too.
-- The items stay until a commit ends or moves them.
-- Windows that may close become retries first.
-- KEYS[1] lease   KEYS[2] retries   KEYS[3] retry items   KEYS[4] marks   KEYS[5] shard   KEYS[6] events
-- KEYS[7] windows   KEYS[8] window items
-- ARGV[1] token   ARGV[2] at most   ARGV[3] 1 mark them
-- returns {0} the shard is not the caller's, or {1, ms until the next is due or window closes, or -1,
--   name, attempt, others who had it in hand and ended without a word, item, name, ...}
--@include redis/clock
--@include bus/engine/marks
--@include bus/engine/shard
--@include bus/engine/windows
local retries, items, marks = KEYS[2], KEYS[3], KEYS[4]
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 0 } end
close(KEYS[7], KEYS[8], KEYS[5], KEYS[6], retries, items, ARGV[2])
local reply = { 1, -1 }
for _, name in ipairs(redis.call('ZRANGEBYSCORE', retries, '-inf', fixed(server_time()), 'LIMIT', 0, ARGV[2])) do
  local item = redis.call('HGET', items, name)
  if item then
    local line = string.find(item, '\n', 1, true)
    local attempt = tonumber(string.sub(item, 1, line - 1)) + 1
    local rest = string.sub(item, line + 1)
    redis.call('HSET', items, name, attempt .. '\n' .. rest)
    reply[#reply + 1] = name
    reply[#reply + 1] = attempt
    reply[#reply + 1] = ARGV[3] == '1' and mark(marks, name, ARGV[1]) or 0
    reply[#reply + 1] = rest
  else
    redis.call('ZREM', retries, name)
  end
end
reply[2] = next_run(retries, KEYS[7], KEYS[5], KEYS[6])
return reply
