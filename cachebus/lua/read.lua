-- read: fetch entries; where the caller cannot use what lies there, let exactly one caller in the cluster load it.
-- KEYS     the entries, then their leases in the same order (one slot)
-- ARGV     lease_ms, length of a lease; born, clock of a load that would begin now, us; then for each read, 4 values:
--   floor    least born acceptable, 16 digits, us     until    least end of life acceptable, 16 digits, us; '' any
--   token    of this caller; '' only reads            touch_ms new life of an acceptable entry; '' leaves it
-- returns  the entries, where all can be used as they are; otherwise for each read, 3 values: entry or false, state,
--          lease's remaining ms
--   state: 0 use it (or nothing asked), 1 the lease is yours, 2 somebody else loads (a fill will wake), 3 no lease to be had
local count, sub = #KEYS / 2, string.sub
local values = redis.call('MGET', unpack(KEYS, 1, count))

local function acceptable(value, at)
  return value and sub(value, 3, 18) >= ARGV[at] and sub(value, 19, 34) >= ARGV[at + 1]
end

local plain = true
for i = 1, count do
  local at = 4 * i - 1
  if ARGV[at + 3] ~= '' or not acceptable(values[i], at) then
    plain = false
    break
  end
end
if plain then return values end

local function touched(key, value, touch_ms)
  local time = redis.call('TIME')
  local ends = string.format('%016.0f', tonumber(time[1]) * 1e6 + tonumber(time[2]) + touch_ms * 1000)
  redis.call('SETRANGE', key, 18, ends)
  redis.call('PEXPIRE', key, touch_ms)
  return sub(value, 1, 18) .. ends .. sub(value, 35)
end

local reply = {}
for i = 1, count do
  local value, at, state, wait = values[i], 4 * i - 1, 0, 0
  local token, touch_ms = ARGV[at + 2], ARGV[at + 3]
  if acceptable(value, at) then
    if touch_ms ~= '' then value = touched(KEYS[i], value, tonumber(touch_ms)) end
  elseif token ~= '' then
    local lease = KEYS[count + i]
    local holder = redis.call('HGET', lease, 'token')
    if holder and holder ~= token then
      redis.call('HSET', lease, 'waited', 1)
      state, wait = 2, redis.call('PTTL', lease)
    else
      local taken = redis.pcall('HSET', lease, 'token', token, 'born', ARGV[2])
      if type(taken) == 'table' and taken.err then
        state = 3
      else
        redis.call('PEXPIRE', lease, ARGV[1])
        state = 1
      end
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = value, state, wait
end
return reply
