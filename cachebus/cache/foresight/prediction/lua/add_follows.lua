-- add_follows: add what one process counted of contexts since it last said so.
-- KEYS[1] the day's contexts
-- ARGV[1] TTL, s   ARGV[2] most contexts   ARGV[3..] name, outcomes, reads, loads, used, ms saved, ms spent
-- returns how many had no room
local contexts, most, left_out = KEYS[1], tonumber(ARGV[2]), 0
local known = redis.call('HLEN', contexts)
for at = 3, #ARGV, 7 do
  local before = redis.call('HGET', contexts, ARGV[at])
  if before or known < most then
    local sums = {}
    local given = string.gmatch(before or '', '%S+')
    for part = 1, 6 do
      sums[part] = string.format('%.0f', (tonumber(given() or '0') or 0) + tonumber(ARGV[at + part]))
    end
    redis.call('HSET', contexts, ARGV[at], table.concat(sums, ' '))
    known = before and known or known + 1
  else
    left_out = left_out + 1
  end
end
redis.call('EXPIRE', contexts, ARGV[1])
return left_out
