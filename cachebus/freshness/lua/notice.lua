-- notice: say that a plain value was set, so that other processes drop the copies of it in their memory.
-- KEYS[1] ledger   KEYS[2] journal
-- ARGV[1] random id, the name of a new era should one begin
-- ARGV[2] era and ARGV[3] number, us, of the clock the value was born at   ARGV[4] its key   ARGV[5..] its scopes
-- returns the clock of the notice, us, as a string; '' where the value is invalid: of another era, or born before the
-- last invalidation of a scope
--@include freshness/ledger
local ledger, journal, born = KEYS[1], KEYS[2], tonumber(ARGV[3])
local _, era = open_ledger(ledger, journal, ARGV[1])
if era ~= ARGV[2] then return '' end
local clocks = redis.call('ZMSCORE', ledger, '@floor', unpack(ARGV, 5))
for i = 1, #clocks do
  if clocks[i] and tonumber(clocks[i]) > born then return '' end
end
local clock, refused, now = invalidate(ledger, journal, ARGV[1], {}, 1, 0, ARGV[4])
if not clock then return refused end
return now == era and fixed(clock) or ''
