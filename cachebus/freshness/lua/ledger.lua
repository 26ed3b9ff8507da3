-- Shared by every script that opens the ledger, one sorted set:
--   <scope> -> clock of its last invalidation, us    @clock -> the logical clock, us    @floor -> highest clock pruned
--   @size -> how many scopes are kept, where a process said so
--   @era:<id> -> -1   @run:<id> -> -2   @why:<word> -> -3: the era, the server run it belongs to, why it began
--   @boot:<id> -> -4: the boot of the machine that keeps what the server has answered, where a process knew it
--   @began -> clock at which the era began           @start -> clock at which a ledger was last missing: nothing that is
--   stored here is older
-- A new era begins with an empty ledger and journal wherever the ledger cannot be right. No number of a caller enters.
--@include redis/clock
local JOURNAL_AGE_US = 120e6
local AHEAD_US = 3600e6
local LEDGER_SCOPES = 200000
local LEAST_SCOPES = 1000
local PRUNE_AT_ONCE = 1000 -- so that a smaller @size does not stop the server
local SCOPES_A_CALL = 490
local ERA = '^' .. string.rep('%x', 16) .. '$'

local function id_of(ledger, score)
  local member = redis.call('ZRANGEBYSCORE', ledger, score, score, 'LIMIT', 0, 1)[1]
  return member and string.match(member, '^@%l+:(.*)$') or ''
end

-- Begins an era named by *id*, random text. Returns its clock.
local function begin_era(ledger, journal, id, run, why)
  local now = fixed(server_time())
  local start = why ~= 'lost' and redis.call('ZSCORE', ledger, '@start') or now
  redis.call('DEL', ledger, journal)
  redis.call('ZADD', ledger, -1, '@era:' .. id, -2, '@run:' .. run, -3, '@why:' .. why, now, '@clock', now, '@began',
    start, '@start', 0, '@floor')
  return tonumber(now)
end

-- Whether *reply* to a pcall says that the name holds another type: somebody else wrote over it.
local function is_wrong_type(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true)
end

-- Returns why the ledger cannot be right: 'lost', or 'absurd' (its clock an hour ahead of the server's time, or infinite,
-- or its floor above its clock). Where it can: nil, its clock, its era.
local function fault(ledger)
  local scores = redis.pcall('ZMSCORE', ledger, '@clock', '@floor')
  if is_wrong_type(scores) then return 'lost' end
  if scores.err then redis.call('ZMSCORE', ledger, '@clock', '@floor') end -- a refusal is no loss: this raises it
  local era = id_of(ledger, -1)
  if not scores[1] or not scores[2] or not string.find(era, ERA) then return 'lost' end
  local clock, floor = tonumber(scores[1]), tonumber(scores[2])
  if not (clock >= 0 and clock <= server_time() + AHEAD_US and floor <= clock) then return 'absurd' end
  return nil, clock, era
end

-- Returns the ledger's clock and era; where it cannot be right, those of a new era named *id*, of an unknown run: who
-- knows the run finds another one there, and begins yet another era.
local function open_ledger(ledger, journal, id)
  local why, clock, era = fault(ledger)
  if why then return begin_era(ledger, journal, id, '', why), id end
  return clock, era
end

-- The fallible XADD comes first: where it fails, nothing has changed. One refused because somebody put an id from the
-- future into the journal, or something else in its place, begins a new era, too. *set* names a plain value that was set: its copies in memory are old.
-- Returns clock, clock before, era.
-- *cause* says why, for people (freshness/cause.py).
local function invalidate(ledger, journal, id, scopes, first, last, set, cause)
  local before, era = open_ledger(ledger, journal, id)
  local clock = math.max(before + 1, server_time())
  local function append()
    return redis.pcall('XADD', journal, 'MINID', '~', fixed(clock - JOURNAL_AGE_US) .. '-0', fixed(clock) .. '-0',
      'before', fixed(before), 'era', era, 'scopes', table.concat(scopes, '\n', first, last), 'set', set or '',
      'cause', cause or '')
  end
  local appended = append()
  if is_wrong_type(appended) or type(appended) == 'table' and appended.err and string.find(appended.err, 'ID', 1, true) then
    before, era = begin_era(ledger, journal, id, '', 'absurd'), id
    clock = before + 1
    appended = append()
  end
  if type(appended) == 'table' and appended.err then return nil, appended end
  local stamp = fixed(clock)
  local stamped = { stamp, '@clock' }
  for i = first, last do
    local n = #stamped
    stamped[n + 1], stamped[n + 2] = stamp, scopes[i]
    if n >= 2 * SCOPES_A_CALL then
      redis.call('ZADD', ledger, unpack(stamped))
      stamped = {}
    end
  end
  if stamped[1] then redis.call('ZADD', ledger, unpack(stamped)) end
  return clock, before, era
end

-- Bounds memory by count. What is forgotten raises @floor: an entry born below it is invalid.
local function prune(ledger)
  local held = redis.call('ZCARD', ledger)
  if held <= LEAST_SCOPES then return end
  local surplus = held - tonumber(redis.call('ZSCORE', ledger, '@size') or LEDGER_SCOPES)
  if surplus < PRUNE_AT_ONCE / 2 then return end -- a few hundred at once cost less than each by itself
  local oldest = redis.call('ZRANGE', ledger, 0, math.min(surplus, PRUNE_AT_ONCE), 'WITHSCORES')
  local floor, forgotten = 0, {}
  for i = 1, #oldest, 2 do
    if string.sub(oldest[i], 1, 1) ~= '@' then
      forgotten[#forgotten + 1] = oldest[i]
      floor = math.max(floor, tonumber(oldest[i + 1]))
    end
  end
  if #forgotten > 0 then
    redis.call('ZADD', ledger, 'GT', fixed(floor), '@floor')
    redis.call('ZREM', ledger, unpack(forgotten))
  end
end
