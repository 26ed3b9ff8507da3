-- look: say who has a lock, and how many wait. Writes nothing.
-- KEYS[1] lock   KEYS[2] line
-- returns nil it is free, or {owner, fence, ms left, how many wait, ms held}
--@include redis/clock
--@include locks/lock
local now, held = server_time(), holder(KEYS[1])
if not held or held.offered or held.ends <= now then return nil end
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence'))
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or fixed(now))
return { held.owner, fence, math.ceil((held.ends - now) / 1000), redis.call('ZCARD', KEYS[2]),
  math.floor((now - since) / 1000) }
