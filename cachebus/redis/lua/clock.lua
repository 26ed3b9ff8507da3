-- Shared by scripts that need the time: the server's own, never a process's. Microseconds; exact in a double until 2255.
-- Numbers that are stored travel as '%.0f' strings: Lua's own number format loses digits beyond 14. Numbers that are
-- returned are whole by math.floor or math.ceil: a server with Lua 5.4 (Dragonfly) would reply to 2.0 with text.
local function fixed(number) return string.format('%.0f', number) end

local function server_time()
  local time = redis.call('TIME')
  return math.floor(tonumber(time[1]) * 1e6 + tonumber(time[2]))
end

-- Keys outlive what they hold by a second: a clock that is corrected by less loses nothing. Milliseconds.
local function lifetime(microseconds) return fixed(math.ceil(microseconds / 1000) + 1000) end
