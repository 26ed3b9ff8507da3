-- Shared by the scripts that keep the windows of debounced handlers: what came in a window is run once, when it closes.
-- A window is a name in a sorted set, scored by when it closes, us, and an item of three lines: when it was opened, us,
-- the name that its run gets in the retries, and the run. Times are those at which the server took the events, so that
-- a worker that is late, or dead for a while, neither closes a window before the events in it nor opens another.

-- Opens a window, or moves the end of the one that is open: `quiet` after the newest event, `most` after the first.
local function debounce(windows, items, name, first, newest, quiet, most, run)
  local opened = string.match(redis.call('HGET', items, name) or '', '^(%d+)\n')
  opened = opened and tonumber(opened) or first
  redis.call('HSET', items, name, fixed(opened) .. '\n' .. run)
  redis.call('ZADD', windows, fixed(math.min(opened + most, newest + quiet)), name)
end

-- Returns up to when windows may close: until now where every event is handled, else until the last one that is.
local function watermark(shard, events)
  local position = redis.call('HGET', shard, 'position') or '0-0'
  local later = redis.pcall('XRANGE', events, '(' .. position, '+', 'COUNT', 1)
  if later.err or #later == 0 then return server_time() end -- an error: nothing comes after the last possible id
  return math.min(server_time(), tonumber(string.match(position, '^(%d+)')) * 1000)
end

-- Turns the windows that may close into retries that are due, at most so many.
local function close(windows, items, shard, events, retries, retry_items, most)
  if redis.call('ZCARD', windows) == 0 then return end
  local now = fixed(server_time())
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', windows, '-inf', fixed(watermark(shard, events)), 'LIMIT', 0, most)) do
    local retry, run = string.match(redis.call('HGET', items, name) or '', '^%d+\n([^\n]*)\n(.*)$')
    if retry then
      redis.call('HSET', retry_items, retry, '0\n' .. run)
      redis.call('ZADD', retries, now, retry)
    end
    redis.call('ZREM', windows, name)
    redis.call('HDEL', items, name)
  end
end

-- Returns in how many milliseconds the next retry is due or window closes, -1 if there is none. A window whose time is
-- over, but not its events, waits for the commit of these, which says it again.
local function next_run(retries, windows, shard, events)
  local due = next_due(retries)
  local closes = tonumber(redis.call('ZRANGE', windows, 0, 0, 'WITHSCORES')[2])
  if not closes then return due end
  local left = math.max(0, math.ceil((closes - server_time()) / 1000))
  if left == 0 and closes > watermark(shard, events) then return due end
  return due < 0 and left or math.min(due, left)
end
