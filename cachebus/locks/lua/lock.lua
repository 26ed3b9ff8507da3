-- Shared by the scripts of a lock. A lock is one hash, in one slot with its line; times are the server's, us:
--   claim     who has it: a random word of one acquisition, 'process/word'
--   owner     the same for people
--   ends      when the claim ends by itself
--   since     when it was acquired
--   offered   the claim stood first in line when the lock became free, and has not answered yet
--   fence     the last fencing token given out
-- The line is a sorted set: claim -> when it came. A claim stays in it until it has acquired the lock.

-- How long whoever is first in line may take to answer. A living process answers in a millisecond.
local OFFER_US = 750000
-- The last fence outlives the lock by this. It may go at all because a fence is never less than the server's clock.
local KEPT_US = 3600e6
-- The line outlives the claim by this: everybody alive in it looks again when the claim ends.
local LINE_US = 60e6

local function holder(lock)
  local fields = redis.call('HMGET', lock, 'claim', 'ends', 'offered', 'owner')
  if not fields[1] then return nil end
  return { claim = fields[1], ends = tonumber(fields[2]), offered = fields[3] and true or false, owner = fields[4] or '' }
end

-- Publishes to those in line whose the lock is now, and for how long: they look again only when that is over.
local function tell(lock, line, channel, kind, claim, us, dropped)
  if redis.call('EXISTS', line) == 1 then
    redis.call('PEXPIRE', line, lifetime(us + LINE_US))
  elseif dropped == '' then
    return
  end
  redis.pcall('PUBLISH', channel, cjson.encode({ lock, kind, claim, math.ceil(us / 1000), dropped }))
end

-- Offers a lock that is free to whoever is first in line; returns the claim, nil where nobody waits.
local function pass_on(lock, line, channel, now, dropped)
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  if not first then
    redis.call('HDEL', lock, 'claim', 'owner', 'ends', 'offered')
    return nil
  end
  redis.call('HSET', lock, 'claim', first, 'owner', '', 'ends', fixed(now + OFFER_US), 'offered', 1)
  redis.call('PEXPIRE', lock, lifetime(OFFER_US + KEPT_US))
  tell(lock, line, channel, 'offer', first, OFFER_US, dropped)
  return first
end

-- A process that did not answer is dead or paused: all its places in line are removed, so it costs the others one offer,
-- not one each. It hears of it, and queues at its places again if it lives. Returns the process.
local function drop(line, claim)
  local process = string.match(claim, '^[^/]*/')
  for _, other in ipairs(redis.call('ZRANGE', line, 0, -1)) do
    if string.sub(other, 1, #process) == process then redis.call('ZREM', line, other) end
  end
  return process
end
