-- take: acquire a lock that is free or offered to us; otherwise, if asked, queue for it.
-- KEYS[1] lock   KEYS[2] line
-- ARGV[1] claim; again with the same one is the same acquisition, so a lost reply costs nothing
-- ARGV[2] owner   ARGV[3] lease, ms   ARGV[4] 'wait' to queue, or ''
-- ARGV[5] the place in line we had, or ''   ARGV[6] wake channel
-- returns {1, fence}, or {0, ms until the claim of whoever has it ends, its owner, our place in line, how many before us}
--@include redis/clock
--@include locks/lock
local lock, line, claim, channel = KEYS[1], KEYS[2], ARGV[1], ARGV[6]
local now, lease_us = server_time(), tonumber(ARGV[3]) * 1000
local held, dropped = holder(lock), ''
if held and held.ends <= now then
  if held.offered and held.claim ~= claim then dropped = drop(line, held.claim) end
  held = nil
end
if not held then
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  if first and first ~= claim then
    pass_on(lock, line, channel, now, dropped)
    held, dropped = holder(lock), ''
  end
end
if not held or held.claim == claim then
  local fence = tonumber(redis.call('HGET', lock, 'fence') or 0)
  if not held or held.offered then
    fence = math.max(fence + 1, now)
    redis.call('HSET', lock, 'since', fixed(now))
  end
  redis.call('HSET', lock, 'claim', claim, 'owner', ARGV[2], 'ends', fixed(now + lease_us), 'fence', fixed(fence))
  redis.call('HDEL', lock, 'offered')
  redis.call('PEXPIRE', lock, lifetime(lease_us + KEPT_US))
  redis.call('ZREM', line, claim)
  tell(lock, line, channel, 'held', claim, lease_us, dropped)
  return { 1, fence }
end
local place, before, left = ARGV[5], 0, held.ends - now
if ARGV[4] == 'wait' then
  local known = redis.call('ZSCORE', line, claim)
  if known then
    place = fixed(tonumber(known))
  else
    local last = tonumber(redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2] or 0)
    if place == '' then place = fixed(math.max(now, last + 1)) end
    redis.call('ZADD', line, place, claim)
    redis.call('PEXPIRE', line, lifetime(left + LINE_US))
  end
  before = redis.call('ZRANK', line, claim)
end
return { 0, math.ceil(left / 1000), held.owner, place, before }
