-- Shared by the session scripts. All sessions of a user are two keys in one slot:
--   records  hash        digest of an id -> record; digest of an id rotated away -> '>until digest'
--   ends     sorted set  digest -> when its session ends if nobody uses it again, us; below zero: minus the `until`
-- A record is lines of text: 'version created seen idle last', user, ip, agent, then a line for each field of the data:
-- name, tab, value. The times are us, `last` is the absolute end. The rest is JSON that no script decodes, or nothing.
local RECORD = '^(%d+) (%d+) (%d+) (%d+) (%d+)\n([^\n]*)\n([^\n]*)\n([^\n]*)(.*)$'
local FORGET_AT_ONCE = 100

local function ends_at(session) return math.min(session.seen + session.idle, session.last) end

local function parse(digest, record)
  local version, created, seen, idle, last, user, ip, agent, fields = string.match(record or '', RECORD)
  if not version then return nil end
  return {
    digest = digest, version = tonumber(version), created = tonumber(created), seen = tonumber(seen),
    idle = tonumber(idle), last = tonumber(last), user = user, ip = ip, agent = agent, fields = fields,
  }
end

local function text(session)
  local times = { fixed(session.version), fixed(session.created), fixed(session.seen), fixed(session.idle),
    fixed(session.last) }
  return table.concat({ table.concat(times, ' '), session.user, session.ip, session.agent }, '\n') .. session.fields
end

-- Returns the live session of an id, also of one that was rotated away a moment ago, or nil.
local function find(records, digest, now)
  local record = redis.call('HGET', records, digest)
  while record and string.sub(record, 1, 1) == '>' do
    local until_us, newer = string.match(record, '^>(%d+) (.+)$')
    if not until_us or tonumber(until_us) <= now then return nil end
    digest, record = newer, redis.call('HGET', records, newer)
  end
  local session = parse(digest, record)
  if session and ends_at(session) > now then return session end
  return nil
end

local function forget(records, ends, digest)
  redis.call('HDEL', records, digest)
  redis.call('ZREM', ends, digest)
end

-- Removes what is dead and lets both keys live as long as their longest session, and not longer.
local function tidy(records, ends, now)
  local dead = redis.call('ZRANGEBYSCORE', ends, fixed(-now), fixed(now), 'LIMIT', 0, FORGET_AT_ONCE)
  for _, digest in ipairs(dead) do forget(records, ends, digest) end
  local longest = tonumber(redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')[2] or 0)
  if longest > now then
    redis.call('PEXPIRE', records, lifetime(longest - now))
    redis.call('PEXPIRE', ends, lifetime(longest - now))
  else
    redis.call('UNLINK', records, ends)
  end
end

local function store(records, ends, session)
  redis.call('HSET', records, session.digest, text(session))
  redis.call('ZADD', ends, fixed(ends_at(session)), session.digest)
end
