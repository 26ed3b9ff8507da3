-- rotate: give a session a new id; the old one serves requests under way for a moment longer.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the old id   ARGV[2] digest of the new id   ARGV[3] overlap us
-- returns nil where there is none, 0 when this id was rotated already, 1 when it is done
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now, overlap = server_time(), tonumber(ARGV[3])
local session = find(records, ARGV[1], now)
if not session then return false end
if session.digest ~= ARGV[1] then return 0 end
session.digest, session.seen = ARGV[2], now
store(records, ends, session)
forget(records, ends, ARGV[1])
if overlap > 0 then
  redis.call('HSET', records, ARGV[1], '>' .. fixed(now + overlap) .. ' ' .. ARGV[2])
  redis.call('ZADD', ends, fixed(-(now + overlap)), ARGV[1])
end
tidy(records, ends, now)
return 1
