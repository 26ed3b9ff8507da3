-- replay_deadletters: move dead letters back to where work is taken from, due now.
-- KEYS[1] dead letters   KEYS[2] due times   KEYS[3] items
-- ARGV[1..] triples: id of the letter, name of the item, item
-- returns how many were moved; a letter that is gone is not
--@include clock
local due, moved = fixed(server_time()), 0
for i = 1, #ARGV, 3 do
  if #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) > 0 then
    redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2])
    redis.call('ZADD', KEYS[2], due, ARGV[i + 1])
    redis.call('XDEL', KEYS[1], ARGV[i])
    moved = moved + 1
  end
end
return moved
