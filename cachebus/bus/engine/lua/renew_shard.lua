-- renew_shard: keep a shard, and hear how it stands.
-- KEYS[1] lease   KEYS[2] shard   KEYS[3] events   KEYS[4] retries   KEYS[5] marks
-- KEYS[6] windows   KEYS[7] contenders, KEYS[8..] leases of every shard: where there are several
-- ARGV[1] token   ARGV[2] lease, ms   ARGV[3] worker   ARGV[4] number of the shard, from 0
-- returns {0} it is not the caller's any more: its handler may go on for long, but it lives, so its marks are taken
--   back; or {1, ms until the next retry is due or window closes or -1, events waiting,
--   1 the caller holds more than its share: this shard is for another}
--@include redis/clock
--@include bus/engine/marks
--@include bus/engine/shard
--@include bus/engine/windows
--@include bus/engine/share
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  unmark(KEYS[5], ARGV[1])
  return { 0 }
end
local surplus = 0
if KEYS[7] then
  local fair, held = share(KEYS[7], 8, tonumber(ARGV[4]), ARGV[3], server_time())
  if held >= fair then surplus = 1 end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 1, next_run(KEYS[4], KEYS[6], KEYS[2], KEYS[3]), waiting(KEYS[2], KEYS[3]), surplus }
