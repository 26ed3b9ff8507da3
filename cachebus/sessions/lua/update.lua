-- update: set and remove fields of a session that is alive, and its timeouts; never brings one back.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the id   ARGV[2] version it must have, 0 any   ARGV[3] most bytes of its data
-- ARGV[4] idle us   ARGV[5] absolute us, from now; 0 as it is
-- ARGV[6..] pairs: name, and its field or '' to remove it
-- returns nil where there is none, 'conflict', 'too large', or {digest, record}
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now = server_time()
local session = find(records, ARGV[1], now)
if not session then return false end
if ARGV[2] ~= '0' and tonumber(ARGV[2]) ~= session.version then return 'conflict' end
local changed, kept = {}, {}
for i = 6, #ARGV, 2 do changed[ARGV[i]] = ARGV[i + 1] end
for field in string.gmatch(session.fields, '\n([^\n]+)') do
  if not changed[string.match(field, '^[^\t]*')] then kept[#kept + 1] = '\n' .. field end
end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then kept[#kept + 1] = '\n' .. ARGV[i + 1] end
end
session.fields = table.concat(kept)
if #session.fields > tonumber(ARGV[3]) then return 'too large' end
session.version, session.seen = session.version + 1, now
if ARGV[4] ~= '0' then session.idle = tonumber(ARGV[4]) end
if ARGV[5] ~= '0' then session.last = now + tonumber(ARGV[5]) end
store(records, ends, session)
tidy(records, ends, now)
return { session.digest, text(session) }
