-- Shared by the scripts that publish an event: tell plain listeners. The notice just before it tells the bridges, which
-- hear the two in this order with nothing between, that the stream has this message already.
-- The event is stored by then, so a user who may not PUBLISH here must not end the script: pcall.

-- Returns 1 where PUBLISH was refused, else 0.
local function say(channel, message)
  local reply = redis.pcall('PUBLISH', channel, message)
  return type(reply) == 'table' and reply.err and 1 or 0
end

-- Returns 1 where plain listeners do not hear the event, else 0.
local function announce(skips, channel, payload)
  if say(skips, #payload .. ' ' .. channel) == 1 then return 1 end
  if say(channel, payload) == 0 then return 0 end
  say(skips, '- ' .. channel) -- nothing came: the next plain message is not the one to skip
  return 1
end
