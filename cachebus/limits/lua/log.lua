-- Strategy of limit_check: the exact log. A list of the times (us) of all that was admitted, oldest first, one item for
-- each unit of cost. What was admitted at t counts until t + window, so no window ever holds more than the limit.
local function limit_log(key, limit, window, cost, now)
  local times = redis.call('LRANGE', key, 0, -1)
  local count = #times
  for i = 1, count do times[i] = tonumber(times[i]) end
  local at = math.max(now, times[count] or 0) -- the server's clock may step back; the log's order may not
  local oldest = 1
  while oldest <= count and times[oldest] + window <= at do oldest = oldest + 1 end
  local free = limit - (count - oldest + 1)
  local function until_free(units) return times[oldest + units - free - 1] + window - now end
  local retry = 0
  if cost > free then retry = cost > limit and -1 or until_free(cost) end
  return {
    free = free,
    retry = retry,
    reset = oldest <= count and until_free(math.max(free, 0) + 1) or 0,
    take = function()
      for _ = 1, cost do redis.call('RPUSH', key, fixed(at)) end
      if oldest > 1 then redis.call('LTRIM', key, oldest - 1, -1) end
      redis.call('PEXPIRE', key, lifetime(at + window - now))
      return (times[oldest] or at) + window - now
    end,
  }
end
