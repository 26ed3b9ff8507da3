-- Shared by the scripts that take and keep a shard: with several shards, each worker holds its share and no more.
-- The contenders are one sorted set: worker -> when it was last heard of, us. A token is 'worker/number'.
local CONTENDER_US = 3.5e6

-- Returns how many shards a worker may hold now, and how many it holds among the first `count` leases of KEYS[first..].
local function share(contenders, first, count, worker, now)
  redis.call('ZADD', contenders, fixed(now), worker)
  redis.call('ZREMRANGEBYSCORE', contenders, '-inf', fixed(now - CONTENDER_US))
  redis.call('PEXPIRE', contenders, 10000)
  local shards, held = #KEYS - first + 1, 0
  for i = first, first + count - 1 do
    local token = redis.call('GET', KEYS[i])
    if token and string.sub(token, 1, #worker + 1) == worker .. '/' then held = held + 1 end
  end
  return math.ceil(shards / redis.call('ZCARD', contenders)), held
end
