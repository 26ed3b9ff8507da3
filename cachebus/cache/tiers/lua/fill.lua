-- fill: store a loaded value unless a newer one lies there, give the lease back, wake whoever waits.
-- A fill whose lease somebody else holds by now is refused; one whose lease is merely gone (evicted, expired) is not.
-- KEYS[1] entry   KEYS[2] lease
-- ARGV[1] token   ARGV[2] entry   ARGV[3] life_ms   ARGV[4] era and born: 16 characters, 16 digits, us
-- ARGV[5] wake channel   ARGV[6] message
-- returns 1 stored, 0 a newer one stays or the lease is somebody else's, -1 the server had no memory for it
--@include cache/tiers/entry
--@include cache/tiers/lease
local holder = holder_of(KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
local result = 0
if replaceable(KEYS[1], ARGV[4]) then
  local written = redis.pcall('SET', KEYS[1], ending(ARGV[2], ARGV[3]), 'PX', ARGV[3])
  result = written.err and -1 or 1
end
if holder then
  local waited = redis.call('HGET', KEYS[2], 'waited')
  redis.call('DEL', KEYS[2])
  if waited then redis.pcall('PUBLISH', ARGV[5], ARGV[6]) end
end
return result
