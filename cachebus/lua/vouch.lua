-- vouch: learn what this server run knows, before anything it holds is trusted.
-- The first process to arrive after a restart or failover marks the clock at which the run began (T0). Whoever has seen
-- a clock beyond T0 knows of lost invalidations: the ledger's start rises above every clock, all entries are invalid.
-- KEYS[1] ledger   KEYS[2] journal
-- ARGV[1] newest clock the caller has seen, us, 0 for a new process
-- ARGV[2] run id of the server   ARGV[3] run id the caller last vouched for, '' for a new process
-- returns {clock, start, floor, server time}, us, as strings
--@include ledger
local ledger, journal = KEYS[1], KEYS[2]
local seen, run, vouched = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local clock, start = open_ledger(ledger, journal, seen)
local began = redis.call('ZSCORE', ledger, '@id:' .. run) and tonumber(redis.call('ZSCORE', ledger, '@run'))
if not began then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ledger, '-inf', 0)) do
    if string.sub(member, 1, 4) == '@id:' then redis.call('ZREM', ledger, member) end
  end
  began = clock
  redis.call('ZADD', ledger, fixed(began), '@run', 0, '@id:' .. run)
end
if vouched ~= '' and vouched ~= run and seen > began and seen > start then
  local before = clock
  clock = next_clock(clock, seen)
  start = clock
  record(ledger, journal, clock, before, start, {}, 1, 0)
  redis.call('ZADD', ledger, fixed(start), '@start', fixed(clock), '@run')
end
return {fixed(clock), fixed(start), redis.call('ZSCORE', ledger, '@floor'), fixed(server_time())}
