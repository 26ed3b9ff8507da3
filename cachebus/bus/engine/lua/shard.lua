-- Shared by the scripts of a shard: its numbers, and dead letters.
-- A shard is one hash: position, the last event whose effects are written; commits, their number; behind, how many
-- events in the stream lie at or before the position; owner, the token of who took it and has not given it back;
-- careful, up to which event that owner marks each before it runs, '' none: the owner before it did not die.

-- Returns how many events wait.
local function waiting(shard, events)
  return math.max(0, redis.call('XLEN', events) - tonumber(redis.call('HGET', shard, 'behind') or 0))
end

-- Returns in how many milliseconds the first of a sorted set by due time is due, -1 if it is empty.
local function next_due(work)
  local first = redis.call('ZRANGE', work, 0, 0, 'WITHSCORES')[2]
  if not first then return -1 end
  return math.max(0, math.ceil((tonumber(first) - server_time()) / 1000))
end

-- Returns whether an id of a stream is more than an hour ahead of the server's clock: a foreign XADD chose it, and ids
-- only grow. The last possible one ends its stream.
local function far_ahead(id)
  return tonumber(string.match(id, '^(%d+)')) > server_time() / 1000 + 3600e3
end

-- Adds to a stream; returns the id, or false where that is not possible: nothing can follow the last possible one.
local function add(stream, ...)
  local reply = redis.pcall('XADD', stream, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'exhausted') or string.find(reply.err, 'equal or smaller') then return false end
  return redis.call('XADD', stream, ...)
end

-- A letter that is put back and fails again is a new record of the stream and keeps its id: the record says it (letter),
-- and a hash where it stands now. Of letters trimmed meanwhile nothing stays there: it never holds more than the stream.
local function keep_id(letters, ids, id, place)
  redis.call('HSET', ids, id, place)
  if redis.call('HLEN', ids) <= redis.call('XLEN', letters) then return end
  local known = redis.call('HGETALL', ids)
  for i = 1, #known, 2 do
    local stands = known[i + 1]
    if string.find(stands, '^%d+%-%d+$') and #redis.call('XRANGE', letters, stands, stands) == 0 then
      redis.call('HDEL', ids, known[i])
    end
  end
end

-- Writes the newest letters again under ids of today; foreign ones go.
local function rewrite(letters, ids)
  local kept = redis.call('XREVRANGE', letters, '+', '-', 'COUNT', 1000)
  redis.call('DEL', letters, ids)
  for i = #kept, 1, -1 do
    local id, fields = kept[i][1], kept[i][2]
    if not far_ahead(id) then
      if fields[#fields - 1] == 'letter' then
        id = fields[#fields]
      else
        fields[#fields + 1] = 'letter'
        fields[#fields + 1] = id
      end
      redis.call('HSET', ids, id, redis.call('XADD', letters, '*', unpack(fields)))
    end
  end
end

-- letter[at..at + 10]: kind, channel, payload, handler, attempts, reason, detail, id, key, position, and the id of the
-- letter it was before; nil or '' where it is one for the first time.
local function bury(letters, ids, length, letter, at)
  local fields = { 'kind', letter[at], 'channel', letter[at + 1], 'payload', letter[at + 2], 'handler', letter[at + 3],
    'attempts', letter[at + 4], 'reason', letter[at + 5], 'detail', letter[at + 6], 'id', letter[at + 7],
    'key', letter[at + 8], 'position', letter[at + 9] }
  local was = letter[at + 10] or ''
  if was ~= '' then
    fields[#fields + 1] = 'letter'
    fields[#fields + 1] = was
  end
  local place = add(letters, 'MAXLEN', '~', length, '*', unpack(fields))
  if not place then
    rewrite(letters, ids)
    place = add(letters, 'MAXLEN', '~', length, '*', unpack(fields))
  end
  if place and was ~= '' then keep_id(letters, ids, was, place) end
end
