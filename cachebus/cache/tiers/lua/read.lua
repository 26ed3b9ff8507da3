-- read: fetch entries; where the caller cannot use what lies there, let exactly one caller in the cluster load it.
-- KEYS     the entries, then their leases in the same order (one slot)
-- ARGV     lease_ms, length of a lease; born, clock of a load that would begin now, us; then for each read, 3 values:
--   floor    era, 16 characters, and least born acceptable in it, 16 digits, us; '' accepts none
--   until    least end of life acceptable, 16 digits, us; '' accepts any
--   token    of this caller; '' only reads
-- returns  the entries, where all can be used as they are; otherwise for each read, 3 values: entry or false, state,
--          lease's remaining ms
--   state: 0 use it (or nothing asked), 1 the lease is yours, 2 somebody else loads (a fill will wake), 3 no lease to be had
--@include cache/tiers/entry
--@include cache/tiers/lease
local count, sub = #KEYS / 2, string.sub
local values = redis.call('MGET', unpack(KEYS, 1, count))

local function acceptable(value, at)
  local floor = ARGV[at]
  return value and floor ~= '' and is_entry(value) and sub(value, 3, 18) == sub(floor, 1, 16)
    and sub(value, 3, 34) >= floor and sub(value, 35, 50) >= ARGV[at + 1]
end

-- What is left of somebody else's lease, ms. None is longer than *lease_ms*: one that is was not made by us.
local function left_of(lease, lease_ms)
  local left = redis.call('PTTL', lease)
  if left >= 0 and left <= lease_ms then return left end
  redis.call('PEXPIRE', lease, lease_ms)
  return lease_ms
end

-- Returns false where the server has no memory for it.
local function take(lease, token, free)
  if free then redis.call('DEL', lease) end -- whatever else has that name
  local set = redis.pcall('HSET', lease, 'token', token, 'born', ARGV[2])
  if type(set) == 'table' and set.err then return false end
  redis.call('PEXPIRE', lease, ARGV[1])
  return true
end

local plain = true
for i = 1, count do
  if not acceptable(values[i], 3 * i) then
    plain = false
    break
  end
end
if plain then return values end

local reply = {}
for i = 1, count do
  local value, state, wait = values[i], 0, 0
  local token = ARGV[3 * i + 2]
  if token ~= '' and not acceptable(value, 3 * i) then
    local lease = KEYS[count + i]
    local holder = holder_of(lease)
    if holder and holder ~= token then
      redis.pcall('HSET', lease, 'waited', 1)
      state, wait = 2, left_of(lease, tonumber(ARGV[1]))
    else
      state = take(lease, token, not holder) and 1 or 3
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = value, state, wait
end
return reply
