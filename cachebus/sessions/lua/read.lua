-- read: return a session, and note that its user was active, at most once in a while.
-- KEYS[1] records   KEYS[2] ends
-- ARGV[1] digest of the id   ARGV[2] how often to note activity, us   ARGV[3] ip   ARGV[4] agent, '' for what is not known
-- returns nil where there is none, else {digest, record as it was, server time us if activity was noted, else nil}
--@include redis/clock
--@include sessions/record
local records, ends = KEYS[1], KEYS[2]
local now = server_time()
local session = find(records, ARGV[1], now)
if not session then return false end
local reply = { session.digest, text(session), false }
if session.seen + math.min(tonumber(ARGV[2]), session.idle / 10) <= now then
  session.seen = now
  if ARGV[3] ~= '' then session.ip = ARGV[3] end
  if ARGV[4] ~= '' then session.agent = ARGV[4] end
  local noted = pcall(store, records, ends, session) -- a server that takes no writes just now still answers reads
  if noted then
    tidy(records, ends, now)
    reply[3] = fixed(now)
  end
end
return reply
