-- Strategy of limit_check: sub-windows. The window is cut into ten parts of the epoch, each with its count; the oldest part
-- is counted in full although only some of it is still inside. So never more than the limit in any window, and what was
-- admitted stops counting at most one part late.
-- A string: 'part_us newest_part count_of_newest count_before_it ...', at most eleven counts.
local LIMIT_PARTS = 10

local function limit_windows(key, limit, window, cost, now)
  local part = math.floor(window / LIMIT_PARTS)
  local newest, counts, used = math.floor(now / part), {}, 0
  local stored = {}
  for number in string.gmatch(redis.call('GET', key) or '', '%d+') do stored[#stored + 1] = tonumber(number) end
  if stored[1] == part then newest = math.max(newest, stored[2]) end -- the server's clock may step back
  for i = 3, #stored do
    local age = newest - stored[2] + i - 3
    if stored[1] ~= part then -- the window was changed: whatever may still be inside counts as if it came now
      age = (stored[2] - i + 4) * stored[1] + window > now and 0 or LIMIT_PARTS + 1
    end
    if age <= LIMIT_PARTS and stored[i] > 0 then
      counts[age] = (counts[age] or 0) + stored[i]
      used = used + stored[i]
    end
  end
  local function leaves(age) return (newest - age + LIMIT_PARTS + 1) * part - now end
  local free = limit - used
  local function until_free(units)
    local freed, wait = free, 0
    for age = LIMIT_PARTS, 0, -1 do
      if freed < units and counts[age] then
        freed, wait = freed + counts[age], leaves(age)
      end
    end
    return wait
  end
  local retry = 0
  if cost > free then retry = cost > limit and -1 or until_free(cost) end
  return {
    free = free,
    retry = retry,
    reset = used > 0 and until_free(math.max(free, 0) + 1) or 0,
    take = function()
      counts[0] = (counts[0] or 0) + cost
      local oldest = LIMIT_PARTS
      while not counts[oldest] do oldest = oldest - 1 end
      local text = { fixed(part), fixed(newest) }
      for age = 0, oldest do text[#text + 1] = fixed(counts[age] or 0) end
      redis.call('SET', key, table.concat(text, ' '), 'PX', lifetime(leaves(0)))
      return leaves(oldest)
    end,
  }
end
