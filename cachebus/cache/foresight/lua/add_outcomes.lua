-- add_outcomes: count what became of entries that were not loaded, older outcomes counting less.
-- KEYS[1] contexts
-- ARGV[1] TTL, s   ARGV[2] outcomes that count   ARGV[3..] context, 1 where it was read, else 0
-- returns 1
local contexts, kept = KEYS[1], 1 - 1 / tonumber(ARGV[2])
for at = 3, #ARGV, 2 do
  local outcomes, reads = string.match(redis.call('HGET', contexts, ARGV[at]) or '0 0', '^(%S+) (%S+)$')
  redis.call('HSET', contexts, ARGV[at],
    string.format('%.3f %.3f', tonumber(outcomes) * kept + 1, tonumber(reads) * kept + tonumber(ARGV[at + 1])))
end
redis.call('EXPIRE', contexts, ARGV[1])
return 1
