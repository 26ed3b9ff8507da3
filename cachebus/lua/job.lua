-- Shared by every script of a job. The job is one hash without TTL:
--   last_fire, attempt, token, fence, lease_until, state, holder, claimed, started, finished, outcome, error, duration_ms
--   paused, runs, overlaps, misfires, deaths
-- states: claimed -> running -> done | failed; died. Times are microseconds of the server's clock.
local function fixed(number) return string.format('%.0f', number) end

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1e6 + tonumber(time[2])
end

local function lease(job, running, now, lease_ms)
  local ends = now + tonumber(lease_ms) * 1000
  redis.call('HSET', job, 'lease_until', fixed(ends))
  redis.call('ZADD', running, fixed(ends), job)
end
