-- Shared by every script that looks at a lease: a hash with its holder's token.

-- The token of whoever holds *lease*; false where nobody does, or where the name holds another type.
local function holder_of(lease)
  local token = redis.pcall('HGET', lease, 'token')
  return type(token) == 'string' and token
end
