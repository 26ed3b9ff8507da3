-- note_history: add what one process counted since it last said so, and what it is like now.
-- KEYS[1] this minute's counters   KEYS[2] this hour's   KEYS[3] processes   KEYS[4] recording   KEYS[5] what is asked
-- KEYS[6] this hour's causes: JSON of view, kind, who, what -> how often, last time in us
-- ARGV[1] TTL of a minute, s   ARGV[2] TTL of an hour, s   ARGV[3] TTL of the list of processes, s
-- ARGV[4] name of the process   ARGV[5] its report   ARGV[6] most questions
-- ARGV[7] TTL of causes, s   ARGV[8] now, us   ARGV[9] number of causes   ARGV[10..] cause, how often; counter, what to add
-- returns {what somebody wants to be recorded, JSON, nil where nobody does; questions, the newest first}
local MOST_CAUSES = 1000
local minute, hour, processes, recording, causes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6]
local counters = 10 + 2 * ARGV[9]
for at = 10, counters - 1, 2 do
  local was = redis.call('HGET', causes, ARGV[at])
  if was or redis.call('HLEN', causes) < MOST_CAUSES then
    local times = ARGV[at + 1] + (was and string.match(was, '^%d+') or 0)
    redis.call('HSET', causes, ARGV[at], string.format('%.0f', times) .. ' ' .. ARGV[8])
  end
end
if counters > 10 then redis.call('EXPIRE', causes, ARGV[7]) end
for at = counters, #ARGV, 2 do
  redis.call('HINCRBY', minute, ARGV[at], ARGV[at + 1])
  redis.call('HINCRBY', hour, ARGV[at], ARGV[at + 1])
end
if #ARGV >= counters then
  redis.call('EXPIRE', minute, ARGV[1])
  redis.call('EXPIRE', hour, ARGV[2])
end
redis.call('HSET', processes, ARGV[4], ARGV[5])
redis.call('EXPIRE', processes, ARGV[3])
local asked = redis.pcall('ZREVRANGE', KEYS[5], 0, ARGV[6] - 1)
return { redis.call('HGET', recording, 'wanted'), asked.err and {} or asked }
