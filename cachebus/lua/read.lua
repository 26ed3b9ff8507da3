-- read: fetch entries; where the caller cannot use what lies there, let exactly one caller in the cluster load it.
-- KEYS     for each read: entry, lease (one slot)
-- ARGV     for each read, 6 values:
--   floor    least born acceptable, 16 digits, us     need_ms  least remaining life acceptable
--   token    of this caller; '' only reads            lease_ms length of a lease
--   born     clock of the load that would begin, us   touch_ms new life of an acceptable entry, 0 leaves it
-- returns  for each read, 4 values: entry or false, remaining life ms, state, lease's remaining ms
--   state: 0 use it (or nothing asked), 1 the lease is yours, 2 somebody else loads (a fill will wake), 3 no lease to be had
local reply = {}
for i = 1, #KEYS / 2 do
  local entry, lease, at = KEYS[2 * i - 1], KEYS[2 * i], 6 * (i - 1)
  local floor, need_ms, token, lease_ms = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local born, touch_ms = ARGV[at + 5], tonumber(ARGV[at + 6])
  local value = redis.pcall('GET', entry)
  if type(value) ~= 'string' then value = false end
  local left = value and redis.call('PTTL', entry) or 0
  local state, wait = 0, 0
  if value and string.sub(value, 3, 18) >= floor and left >= need_ms then
    if touch_ms > 0 then
      redis.call('PEXPIRE', entry, touch_ms)
      left = touch_ms
    end
  elseif token ~= '' then
    local holder = redis.call('HGET', lease, 'token')
    if holder and holder ~= token then
      redis.call('HSET', lease, 'waited', 1)
      state, wait = 2, redis.call('PTTL', lease)
    else
      local taken = redis.pcall('HSET', lease, 'token', token, 'born', born)
      if type(taken) == 'table' and taken.err then
        state = 3
      else
        redis.call('PEXPIRE', lease, lease_ms)
        state = 1
      end
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = value, left, state, wait
end
return reply
