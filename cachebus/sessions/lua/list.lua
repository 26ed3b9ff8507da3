-- list: every live session of a user. Writes nothing.
-- KEYS[1] records   KEYS[2] ends
-- returns {digest, record, digest, record...}
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now = server_time()
local reply = {}
for _, digest in ipairs(redis.call('ZRANGEBYSCORE', ends, '(' .. fixed(now), '+inf')) do
  local record = redis.call('HGET', records, digest)
  if record then
    reply[#reply + 1] = digest
    reply[#reply + 1] = record
  end
end
return reply
