-- forget_events: delete events that were handled, as if they had been trimmed.
-- KEYS[1] events   KEYS[2] shard
-- ARGV[1..] positions of events
-- returns how many were deleted; one that waits is left, and the one at the shard's position, which a commit looks for
local position = redis.call('HGET', KEYS[2], 'position') or '0-0'
local function numbers(id) return tonumber(string.match(id, '^(%d+)')), tonumber(string.match(id, '%-(%d+)$')) end
local to_ms, to_number = numbers(position)
local deleted = 0
for i = 1, #ARGV do
  local ms, number = numbers(ARGV[i])
  if ARGV[i] ~= position and (ms < to_ms or (ms == to_ms and number < to_number)) then
    deleted = deleted + redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
if deleted > 0 then redis.call('HINCRBY', KEYS[2], 'behind', -deleted) end
return deleted
