-- note_reads: count sampled reads of a view's calls, newer ones more than older ones, and when each was last read.
-- A count is never decayed where it lies: what is added grows instead, twofold per half-life since the epoch began.
-- Source: forward decay, Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009.
-- KEYS[1] calls by count   KEYS[2] calls by time of the last read, us
-- ARGV[1] when the epoch began, us   ARGV[2] half-life, us   ARGV[3] most calls kept   ARGV[4] kept for, ms
-- ARGV[5..] reads, arguments
-- returns how many calls are counted
--@include redis/clock
local now = server_time()
local growth = 2 ^ ((now - tonumber(ARGV[1])) / tonumber(ARGV[2]))
for i = 5, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], string.format('%.17g', tonumber(ARGV[i]) * growth), ARGV[i + 1])
  redis.call('ZADD', KEYS[2], fixed(now), ARGV[i + 1])
end
for _, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYRANK', key, 0, -tonumber(ARGV[3]) - 1)
  redis.call('PEXPIRE', key, ARGV[4])
end
return redis.call('ZCARD', KEYS[1])
