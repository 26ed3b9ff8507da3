-- Shared by the scripts of a job. A job is one hash without TTL, in the bus's slot; times are the server's, us:
--   last_fire   newest fire time that somebody took, or that was passed over
--   fire, attempt, token, fence, holder, claimed, started, lease_until   the run under way, or the last one
--   state       claimed -> running -> done | failed; died | cancelled, if it may not be started again.
--               attempt counts starts; a run that was handed back has no holder
--   finished, outcome, error, duration_ms   how the last run that ended went
--   progress, marks   how far it has come, for people and for whoever starts it again
--   paused      0, 1, or until when (us)
--   runs, overlaps, misfires, deaths

-- How long nothing is given away after the server was restarted, replaced, or not asked by anybody for a while: workers
-- that know more than it does say so first (greet_jobs), and whoever holds a run renews its lease or says how it ended.
-- A connection is tried again every 1.25 s.
local SETTLING_US = 3e6

-- The run of the server is a hash: id; changed, when that was noticed; looked, when a worker last looked at the clock.
local function settling_ms(run, now)
  local changed = tonumber(redis.call('HGET', run, 'changed') or 0)
  return math.max(0, math.ceil((changed + SETTLING_US - now) / 1000))
end

local function is_paused(paused, now)
  local till = tonumber(paused) or 0
  return till == 1 or till > now
end

local function lease(job, running, now, lease_ms)
  local ends = fixed(now + tonumber(lease_ms) * 1000)
  redis.call('HSET', job, 'lease_until', ends)
  redis.call('ZADD', running, ends, job)
end
