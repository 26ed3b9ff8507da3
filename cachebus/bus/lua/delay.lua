-- delay: keep events until they are due, but for those whose id is known. Safe to repeat.
-- KEYS[1] delayed   KEYS[2] delayed items   KEYS[3..] mark of each id
-- ARGV[1] delay, ms   ARGV[2] most delayed events   ARGV[3] channel that wakes movers
-- ARGV[4..] of each event: id, event, how long the id is known once it is due, ms
-- returns of each: 1 kept, 0 its id is known, -1 so many are delayed already that it was not kept
--@include redis/clock
--@include bus/announce
--@include bus/delayed
local delayed, items, due = KEYS[1], KEYS[2], server_time() + tonumber(ARGV[1]) * 1000
local results = {}
for n = 1, #KEYS - 2 do
  local mark, at = KEYS[2 + n], 1 + 3 * n
  local id = ARGV[at]
  if redis.call('EXISTS', mark) == 1 or redis.call('HGET', items, id) then
    results[n] = 0
  elseif redis.call('ZCARD', delayed) >= tonumber(ARGV[2]) then
    results[n] = -1
  else
    redis.call('SET', mark, 1, 'PX', fixed(tonumber(ARGV[1]) + tonumber(ARGV[at + 2])))
    delay(delayed, items, id, due + n, ARGV[at + 1], ARGV[3]) -- a microsecond apart: in this order
    results[n] = 1
  end
end
return results
