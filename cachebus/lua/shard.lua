-- Shared by the scripts of a shard: its numbers, and dead letters.
-- A shard is one hash: position, the last event whose effects are written; commits, their number; behind, how many
-- events in the stream lie at or before the position; owner, the token of who took it and has not given it back.

-- Returns how many events wait.
local function waiting(shard, events)
  return math.max(0, redis.call('XLEN', events) - tonumber(redis.call('HGET', shard, 'behind') or 0))
end

-- Returns in how many milliseconds the next retry is due, -1 if there is none.
local function next_due(retries)
  local first = redis.call('ZRANGE', retries, 0, 0, 'WITHSCORES')[2]
  if not first then return -1 end
  return math.max(0, math.ceil((tonumber(first) - server_time()) / 1000))
end

local function bury(letters, length, letter, at)
  redis.call('XADD', letters, 'MAXLEN', '~', length, '*', 'kind', letter[at], 'channel', letter[at + 1],
    'payload', letter[at + 2], 'handler', letter[at + 3], 'attempts', letter[at + 4], 'reason', letter[at + 5],
    'detail', letter[at + 6], 'id', letter[at + 7], 'key', letter[at + 8], 'position', letter[at + 9])
end
