-- write: store a value whatever lies there, unless that was born later.
-- KEYS[1] entry
-- ARGV[1] entry   ARGV[2] life_ms   ARGV[3] era and born: 16 characters, 16 digits, us
-- returns 1 stored, 0 a newer one stays
--@include cache/tiers/entry
if not replaceable(KEYS[1], ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ending(ARGV[1], ARGV[2]), 'PX', ARGV[2])
return 1
