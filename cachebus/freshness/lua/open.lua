-- open: learn the era of the ledger before anything it says is trusted; the handshake of every new connection.
-- A new era begins where there is no ledger, where it belongs to another run of the server (restart, failover), and where
-- its clock, or the journal's, is absurd, or either name holds another type.
-- KEYS[1] ledger   KEYS[2] journal
-- ARGV[1] random id, the name of a new era should one begin   ARGV[2] run id of the server, '' where it may not be asked
-- ARGV[3] '1': an era of another run is adopted (the operator vouches for the data)   ARGV[4] an era that is proven to be
-- of this run, for where the run, or the era's, has no name; '' none
-- ARGV[5] how many of the newest scopes to return, where the era is not ARGV[6]; ARGV[6] '' always
-- ARGV[7] the machine's boot, where an append-only server on it loses nothing before the machine does; '' unknown
-- ARGV[8] the era the caller is in   ARGV[9] up to which clock it has followed the journal there: a ledger that is not so
-- far was put back from a copy
-- ARGV[10] how many scopes the ledger is to keep from now on; '' as many as it does
-- returns {era, clock, us, '' or why the era began now: lost, absurd, run; then each of the newest scopes and its clock}
--@include freshness/ledger
local ledger, journal = KEYS[1], KEYS[2]
local id, run, proven, boot = ARGV[1], ARGV[2], ARGV[4], ARGV[7]
local adopts = ARGV[3] == '1' or boot ~= '' and id_of(ledger, -4) == boot
local why = fault(ledger)
if not why then
  local newest = redis.pcall('XREVRANGE', journal, '+', '-', 'COUNT', 1)
  local alien = is_wrong_type(newest)
  if newest.err and not alien then return newest end
  local top = newest[1] and tonumber(string.match(newest[1][1], '^(%d+)')) or 0
  local clock = tonumber(redis.call('ZSCORE', ledger, '@clock'))
  if alien or top > clock or id_of(ledger, -1) == ARGV[8] and tonumber(ARGV[9]) > clock then
    why = 'absurd'
  elseif run == '' or id_of(ledger, -2) ~= run then
    if adopts then
      redis.call('ZREMRANGEBYSCORE', ledger, -2, -2)
      redis.call('ZADD', ledger, -2, '@run:' .. run)
    elseif (run ~= '' and id_of(ledger, -2) ~= '') or proven ~= id_of(ledger, -1) then
      why = 'run'
    end
  end
end
if why then begin_era(ledger, journal, id, run, why) end
if boot ~= '' and id_of(ledger, -4) ~= boot then
  redis.call('ZREMRANGEBYSCORE', ledger, -4, -4)
  redis.call('ZADD', ledger, -4, '@boot:' .. boot)
end
if ARGV[10] ~= '' then redis.call('ZADD', ledger, ARGV[10], '@size') end
local era = id_of(ledger, -1)
local reply = { era, redis.call('ZSCORE', ledger, '@clock'), why or '' }
if ARGV[6] == '' or ARGV[6] ~= era then
  for _, part in ipairs(redis.call('ZRANGE', ledger, 0, ARGV[5] - 1, 'REV', 'WITHSCORES')) do
    reply[#reply + 1] = part
  end
end
return reply
