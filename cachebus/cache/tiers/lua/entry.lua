-- Shared by every script that stores an entry: bytes 3 to 18 are its era, 19 to 34 its birth, 35 to 50 the end of its
-- life, microseconds of server time as digits. The end is written here, where the time is the server's own.

-- Whether *value* begins as an entry does. Anything else under our name (cut, damaged, another program's) is a miss.
local function is_entry(value)
  local find = string.find -- looks for the first byte that does not fit, which is quicker than a pattern of fifty items
  return #value >= 50 and string.sub(value, 1, 2) == 'C2' and (find(value, '%X', 3) or 51) > 18
    and (find(value, '%D', 19) or 51) > 50
end

-- Whether what is stored may be replaced by something stamped *stamp*, era and birth: it is older, of another era, or no
-- entry.
local function replaceable(key, stamp)
  local head = redis.pcall('GETRANGE', key, 0, 49)
  if type(head) ~= 'string' or not is_entry(head) then return true end -- a table: the name holds another type
  return string.sub(head, 3, 18) ~= string.sub(stamp, 1, 16) or string.sub(head, 3, 34) <= stamp
end

local function ending(value, life_ms)
  local time = redis.call('TIME')
  local ends = tonumber(time[1]) * 1e6 + tonumber(time[2]) + tonumber(life_ms) * 1000
  return string.sub(value, 1, 34) .. string.format('%016.0f', ends) .. string.sub(value, 51)
end
