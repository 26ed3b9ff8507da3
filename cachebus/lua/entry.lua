-- Shared by every script that stores an entry: bytes 3 to 18 are its birth, 19 to 34 the end of its life, microseconds
-- of server time as digits. The end is written here, where the time is the server's own.

-- Whether what is stored may be replaced by something born at *born*: it is older, or no birth of ours (a day ahead).
local function replaceable(entry, born)
  local stored = redis.call('GETRANGE', entry, 2, 17)
  return stored <= born or stored > string.format('%016.0f', tonumber(redis.call('TIME')[1]) * 1e6 + 86400e6)
end

local function ending(value, life_ms)
  local time = redis.call('TIME')
  local ends = tonumber(time[1]) * 1e6 + tonumber(time[2]) + tonumber(life_ms) * 1000
  return string.sub(value, 1, 18) .. string.format('%016.0f', ends) .. string.sub(value, 35)
end
