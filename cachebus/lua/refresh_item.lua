-- Shared by the scripts of refreshes. An item is five lines: clock, takes, failures, view, arguments.
local function parse(item)
  local clock, takes, fails, view, arguments = string.match(item or '', '^(%d+)\n(%d+)\n(%d+)\n([^\n]*)\n(.*)$')
  if not clock then return nil end
  return { clock = clock, takes = tonumber(takes), fails = tonumber(fails), view = view, arguments = arguments }
end

local function store(items, key, item)
  redis.call('HSET', items, key,
    table.concat({ item.clock, item.takes, item.fails, item.view, item.arguments }, '\n'))
end

local function forget(refreshes, items, key)
  redis.call('ZREM', refreshes, key)
  redis.call('HDEL', items, key)
end
