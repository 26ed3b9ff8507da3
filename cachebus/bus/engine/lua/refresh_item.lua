-- Shared by the scripts of refreshes. An item is five lines: clock, takes, failures, view, arguments; and a sixth where
-- the event that asked for it is traced: its traceparent.
local function parse(item)
  local clock, takes, fails, view, arguments = string.match(item or '', '^([^\n]*)\n(%d+)\n(%d+)\n([^\n]*)\n(.*)$')
  if not clock then return nil end
  local own, trace = string.match(arguments, '^(.*)\n(%x%x%-%x+%-%x+%-%x%x)$')
  return { clock = clock, takes = tonumber(takes), fails = tonumber(fails), view = view, arguments = own or arguments,
    trace = trace }
end

local function store(items, key, item)
  redis.call('HSET', items, key,
    table.concat({ item.clock, item.takes, item.fails, item.view, item.arguments, item.trace }, '\n'))
end

local function forget(refreshes, items, ids, key)
  redis.call('ZREM', refreshes, key)
  redis.call('HDEL', items, key)
  redis.call('HDEL', ids, 'refresh ' .. key)
end

-- Makes a dead letter of an entry. One that was put back is the letter it was, with the attempts of both.
local function bury_refresh(letters, ids, length, key, item, attempts, reason, detail)
  local before, was = string.match(redis.call('HGET', ids, 'refresh ' .. key) or '0 ', '^(%d+) (.*)$')
  local view = string.gsub(item.view, '^%?', '')  -- put back, it is loaded in any case
  bury(letters, ids, length, { 'refresh', '', item.arguments, view, attempts + tonumber(before), reason, detail,
    '', key, '', was }, 1)
end
