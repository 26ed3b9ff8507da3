-- replay_deadletters: move dead letters back to where work is taken from, due now, and wake whoever takes it.
-- KEYS[1] dead letters   KEYS[2] ids of those that were put back before   KEYS[3] due times   KEYS[4] items
-- ARGV[1] channel that wakes   ARGV[2..] fives: id of the letter, where it stands in the stream, attempts where the item
--   cannot say them or '', name of the item, item
-- returns how many were moved; a letter that is gone is not
--@include redis/clock
--@include bus/announce
local letters, ids, due, moved = KEYS[1], KEYS[2], fixed(server_time()), 0
for i = 2, #ARGV, 5 do
  local id, place, attempts, name = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if redis.call('XDEL', letters, place) == 1 then
    redis.call('HDEL', ids, id)
    if attempts ~= '' then redis.call('HSET', ids, 'refresh ' .. name, attempts .. ' ' .. id) end
    redis.call('HSET', KEYS[4], name, ARGV[i + 4])
    redis.call('ZADD', KEYS[3], due, name)
    moved = moved + 1
  end
end
if moved > 0 then say(ARGV[1], moved) end
return moved
