-- publish: append events unless their ids are known, and tell plain listeners.
-- KEYS[1] events   KEYS[2] mark of this call   KEYS[3..] marks of the ids that are to be known, in the events' order
-- ARGV[1] how long the call's mark is kept, ms; '' not at all   ARGV[2] most events in the stream
-- ARGV[3] channel of the skip notices
-- ARGV[4..] of each event: channel, payload, id, how long the id is to be known, ms ('' not at all), number of further
--   values, then these: name, value, …
-- returns of each event: 1 appended, 2 appended, but this user may not PUBLISH it to plain listeners, 0 its id is known (and
-- stays known as long again), -1 the stream is full and it was not appended. A call that is repeated returns the same.
--@include bus/announce
local events, call, keep_ms, skips = KEYS[1], KEYS[2], ARGV[1], ARGV[3]
local results = {}

-- A write even then: WAIT, on a connection that did not make the first attempt, waits for this one.
if keep_ms ~= '' and redis.call('PEXPIRE', call, keep_ms) == 1 then
  for result in string.gmatch(redis.call('GET', call), '%S+') do results[#results + 1] = tonumber(result) end
  return results
end

-- Returns nil where it is appended, else the error.
local function append(channel, payload, id, first, last)
  local added = redis.pcall('XADD', events, '*', 'channel', channel, 'payload', payload, 'id', id,
    unpack(ARGV, first, last))
  return type(added) == 'table' and added.err or nil
end

local room = tonumber(ARGV[2]) - redis.call('XLEN', events)
local at, marks = 4, 2
while at <= #ARGV do
  local channel, payload, known_ms, last = ARGV[at], ARGV[at + 1], ARGV[at + 3], at + 4 + tonumber(ARGV[at + 4])
  local mark = nil
  if known_ms ~= '' then
    marks = marks + 1
    mark = KEYS[marks]
  end
  local result
  if mark and redis.call('PEXPIRE', mark, known_ms) == 1 then
    result = 0
  elseif room < 1 then
    result = -1
  else
    local refused = append(channel, payload, ARGV[at + 2], at + 5, last)
    if not refused then
      room = room - 1
      if mark then redis.call('SET', mark, 1, 'PX', known_ms) end
      result = 1 + announce(skips, channel, payload)
    elseif string.find(refused, 'exhausted') then
      result = -1 -- nothing can follow the last possible id, which a foreign XADD used; the worker that handles it makes room
    else
      return redis.error_reply(refused)
    end
  end
  results[#results + 1] = result
  at = last + 1
end
if keep_ms ~= '' then redis.call('SET', call, table.concat(results, ' '), 'PX', keep_ms) end
return results
