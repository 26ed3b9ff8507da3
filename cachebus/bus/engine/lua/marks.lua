-- Shared by the scripts that mark what is being run, so that whatever ends its process twice is found.
-- The marks are one hash: event or item -> tokens of those who had it in hand and were not heard of again.

-- Digits as text: numbers in Lua are exact up to 2^53 only, halves of an id go up to 2^64 - 1.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- Returns whether stream id a comes before b.
local function earlier(a, b)
  local a_ms, a_number = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_number = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then return less(a_ms, b_ms) end
  return less(a_number, b_number)
end

-- Adds a token to a mark; returns how many others are there.
local function mark(marks, name, token)
  local others = {}
  for other in string.gmatch(redis.call('HGET', marks, name) or '', '%S+') do
    if other ~= token then others[#others + 1] = other end
  end
  redis.call('HSET', marks, name, table.concat(others, ' ') .. ' ' .. token)
  return #others
end

-- Takes a token out of all marks: its owner lives, whatever it had in hand did not kill it.
local function unmark(marks, token)
  local all = redis.call('HGETALL', marks)
  for i = 1, #all, 2 do
    local others, found = {}, false
    for other in string.gmatch(all[i + 1], '%S+') do
      if other == token then found = true else others[#others + 1] = other end
    end
    if found and #others == 0 then
      redis.call('HDEL', marks, all[i])
    elseif found then
      redis.call('HSET', marks, all[i], table.concat(others, ' '))
    end
  end
end
