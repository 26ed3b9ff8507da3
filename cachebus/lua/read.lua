-- read: fetch entries; where the caller cannot use what lies there, let exactly one caller in the cluster load it.
-- KEYS     the entries, then their leases in the same order (one slot)
-- ARGV     for each read, 6 values:
--   floor    least born acceptable, 16 digits, us     until    least end of life acceptable, 16 digits, us
--   token    of this caller; '' only reads            lease_ms length of a lease
--   born     clock of the load that would begin, us   touch_ms new life of an acceptable entry, 0 leaves it
-- returns  for each read, 3 values: entry or false, state, lease's remaining ms
--   state: 0 use it (or nothing asked), 1 the lease is yours, 2 somebody else loads (a fill will wake), 3 no lease to be had
local count = #KEYS / 2
local entries = {}
for i = 1, count do entries[i] = KEYS[i] end
local values = redis.call('MGET', unpack(entries))
local reply = {}
for i = 1, count do
  local value, at, state, wait = values[i], 6 * (i - 1), 0, 0
  if value and string.sub(value, 3, 18) >= ARGV[at + 1] and string.sub(value, 19, 34) >= ARGV[at + 2] then
    local touch_ms = tonumber(ARGV[at + 6])
    if touch_ms > 0 then
      local time = redis.call('TIME')
      local ends = string.format('%016.0f', tonumber(time[1]) * 1e6 + tonumber(time[2]) + touch_ms * 1000)
      redis.call('SETRANGE', KEYS[i], 18, ends)
      redis.call('PEXPIRE', KEYS[i], touch_ms)
      value = string.sub(value, 1, 18) .. ends .. string.sub(value, 35)
    end
  elseif ARGV[at + 3] ~= '' then
    local lease, token = KEYS[count + i], ARGV[at + 3]
    local holder = redis.call('HGET', lease, 'token')
    if holder and holder ~= token then
      redis.call('HSET', lease, 'waited', 1)
      state, wait = 2, redis.call('PTTL', lease)
    else
      local taken = redis.pcall('HSET', lease, 'token', token, 'born', ARGV[at + 5])
      if type(taken) == 'table' and taken.err then
        state = 3
      else
        redis.call('PEXPIRE', lease, ARGV[at + 4])
        state = 1
      end
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = value, state, wait
end
return reply
