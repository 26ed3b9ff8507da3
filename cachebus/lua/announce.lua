-- Shared by the scripts that publish an event: tell plain listeners. The notice just before it tells the bridges, which
-- hear the two in this order with nothing between, that the stream has this message already.
local function announce(skips, channel, payload)
  redis.call('PUBLISH', skips, #payload .. ' ' .. channel)
  redis.call('PUBLISH', channel, payload)
end
