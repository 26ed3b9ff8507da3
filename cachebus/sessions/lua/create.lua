-- create: begin a session under a new id, within the user's number of sessions.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the new id   ARGV[2] user   ARGV[3] ip   ARGV[4] agent   ARGV[5] idle us   ARGV[6] absolute us
-- ARGV[7] most sessions of the user, 0 any number   ARGV[8] 'evict_oldest' or 'refuse'   ARGV[9..] fields
-- returns {1 created or 0 refused, digests of the sessions that were ended for it...}
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now, most = server_time(), tonumber(ARGV[7])
local reply = { 1 }
if most > 0 then
  local live = {}
  for _, digest in ipairs(redis.call('ZRANGEBYSCORE', ends, '(' .. fixed(now), '+inf')) do
    live[#live + 1] = parse(digest, redis.call('HGET', records, digest))
  end
  if #live >= most and ARGV[8] == 'refuse' then return { 0 } end
  table.sort(live, function(a, b) return a.created < b.created end)
  for i = 1, #live - most + 1 do reply[i + 1] = live[i].digest end
end
local fields = {}
for i = 9, #ARGV do fields[#fields + 1] = '\n' .. ARGV[i] end
store(records, ends, {
  digest = ARGV[1], version = 1, created = now, seen = now, idle = tonumber(ARGV[5]), last = now + tonumber(ARGV[6]),
  user = ARGV[2], ip = ARGV[3], agent = ARGV[4], fields = table.concat(fields),
})
for i = 2, #reply do forget(records, ends, reply[i]) end
tidy(records, ends, now)
return reply
