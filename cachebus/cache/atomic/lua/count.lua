-- count: add to a number, which begins at 0.
-- KEYS[1] value
-- ARGV[1] how much is added   ARGV[2] ttl of a number that begins, ms
-- returns the sum, as text: Lua's own numbers are exact up to 2^53 only; or 0: no whole number of 64 bits, unchanged
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' then
  if string.find(sum.err, 'integer') or string.find(sum.err, 'overflow') then return 0 end
  return redis.error_reply(sum.err)
end
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
