-- invalidate: make everything under some scopes unreadable, in one step.
-- KEYS[1] ledger   KEYS[2] journal
-- ARGV[1] random id, the name of a new era should one begin   ARGV[2] causes, JSON (freshness/cause.py)
-- ARGV[3..] scopes, at most 1,000; none: only tick the clock
-- returns {clock, clock before, us, era, clock of each scope before or false …}, as strings
--@include freshness/ledger
local ledger, journal = KEYS[1], KEYS[2]
local scopes_before = #ARGV > 2 and redis.call('ZMSCORE', ledger, unpack(ARGV, 3)) or {}
local clock, before, era = invalidate(ledger, journal, ARGV[1], ARGV, 3, #ARGV, '', ARGV[2])
if not clock then return before end
prune(ledger)
return { fixed(clock), fixed(before), era, unpack(scopes_before) }
