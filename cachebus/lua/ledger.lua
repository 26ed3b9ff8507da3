-- Shared by every script that invalidates. The ledger is one sorted set:
--   <scope> -> clock of its last invalidation      @clock -> the logical clock, microseconds
--   @start  -> clock at which this ledger began    @floor -> highest clock ever pruned
--   @run   -> clock when the present server run was first vouched for; @id:<run id> -> 0 names that run
--@include clock
local JOURNAL_AGE_US = 120e6
local LEDGER_SCOPES = 200000
local PRUNE_AT_ONCE = 500
local SCOPES_A_CALL = 490

-- Returns the ledger's clock and start; begins a new ledger, above everything anyone has seen, where there is none.
local function open_ledger(ledger, journal, seen)
  local clock = redis.call('ZSCORE', ledger, '@clock')
  if clock then
    return tonumber(clock), tonumber(redis.call('ZSCORE', ledger, '@start'))
  end
  local newest = redis.call('XREVRANGE', journal, '+', '-', 'COUNT', 1)[1]
  local top = newest and tonumber(string.match(newest[1], '^(%d+)')) or 0
  local start = math.max(server_time(), seen + 1, top + 1)
  redis.call('ZADD', ledger, fixed(start), '@clock', fixed(start), '@start', 0, '@floor')
  return start, start
end

local function next_clock(clock, seen)
  return math.max(clock + 1, seen + 1, server_time())
end

-- The fallible XADD comes first: where it fails, nothing has changed.
local function record(ledger, journal, clock, before, start, scopes, first, last)
  redis.call('XADD', journal, 'MINID', '~', fixed(clock - JOURNAL_AGE_US) .. '-0', fixed(clock) .. '-0',
    'before', fixed(before), 'start', fixed(start), 'scopes', table.concat(scopes, '\n', first, last))
  local stamp = fixed(clock)
  redis.call('ZADD', ledger, stamp, '@clock')
  for from = first, last, SCOPES_A_CALL do
    local stamped = {}
    for i = from, math.min(from + SCOPES_A_CALL - 1, last) do
      local n = #stamped
      stamped[n + 1], stamped[n + 2] = stamp, scopes[i]
    end
    redis.call('ZADD', ledger, unpack(stamped))
  end
end

-- Bounds memory by count. What is forgotten raises @floor: an entry born below it asks nobody, it is invalid.
local function prune(ledger)
  if redis.call('ZCARD', ledger) <= LEDGER_SCOPES + PRUNE_AT_ONCE then return end
  local oldest = redis.call('ZRANGE', ledger, 0, PRUNE_AT_ONCE, 'WITHSCORES')
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
