-- invalidate: make everything under some scopes unreadable, in one step.
-- KEYS[1] ledger   KEYS[2] journal
-- ARGV[1] newest clock the caller has seen, us   ARGV[2..] scopes, at most 1,000; none: only tick the clock
-- returns {clock, clock before, start}, us, as strings
--@include ledger
local ledger, journal = KEYS[1], KEYS[2]
local seen = tonumber(ARGV[1])
local before, start = open_ledger(ledger, journal, seen)
local clock = next_clock(before, seen)
record(ledger, journal, clock, before, start, ARGV, 2, #ARGV)
prune(ledger)
return {fixed(clock), fixed(before), fixed(start)}
