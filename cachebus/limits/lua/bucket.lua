-- Strategy of limit_check: the token bucket, as GCRA (a meter that fills with each request and drains at a steady rate).
-- Whole numbers only: the level counts tokens times the window's milliseconds, so that draining is `limit` a millisecond
-- and a token is `window`. The caller keeps limit * window under 2^52, where a double's quotient still rounds right.
-- A string: 'level at_ms window_ms'.
local function limit_bucket(key, limit, window, cost, now)
  local token = math.floor(window / 1000)
  local tick, level = math.floor(now / 1000), 0
  local was, at, span = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if was then
    level, at, span = tonumber(was), tonumber(at), tonumber(span)
    if span ~= token then level = math.ceil(level * (token / span)) end -- the window was changed
    tick = math.max(tick, at) -- the server's clock may step back
    level = math.max(0, level - (tick - at) * limit)
  end
  local late = math.max(0, tick * 1000 - now) -- how far the clock stepped back
  local capacity = limit * token
  local free = math.floor((capacity - level) / token)
  local function drained_to(target) return math.ceil((level - target) / limit) * 1000 + late end
  local retry = 0
  if cost > free then retry = cost > limit and -1 or drained_to(capacity - cost * token) end
  return {
    free = free,
    retry = retry,
    reset = level > 0 and drained_to(capacity - (math.max(free, 0) + 1) * token) or 0,
    take = function()
      level = level + cost * token
      redis.call('SET', key, fixed(level) .. ' ' .. fixed(tick) .. ' ' .. fixed(token),
        'PX', lifetime(drained_to(0)))
      return drained_to(capacity - (free - cost + 1) * token)
    end,
  }
end
