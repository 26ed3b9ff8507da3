-- Strategy of limit_check: the fixed window. Windows are parts of the epoch; each begins at nothing, so twice the limit
-- may pass around the edge between two. A string: 'end_us count'.
local function limit_fixed(key, limit, window, cost, now)
  local ends, count = (math.floor(now / window) + 1) * window, 0
  local until_us, was = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  if until_us and tonumber(until_us) > now then count = tonumber(was) end
  local free = limit - count
  local retry = 0
  if cost > free then retry = cost > limit and -1 or ends - now end
  return {
    free = free,
    retry = retry,
    reset = count > 0 and ends - now or 0,
    take = function()
      redis.call('SET', key, fixed(ends) .. ' ' .. fixed(count + cost), 'PX', lifetime(ends - now))
      return ends - now
    end,
  }
end
