-- try_commands: run every command that the scripts of this library use, on names that nothing else uses, so that what the
-- server's access rules refuse is found before a script is in the middle of its writes. A script does not roll back.
-- KEYS[1] string   KEYS[2] hash   KEYS[3] stream   KEYS[4] sorted set   KEYS[5] list
-- returns the commands that are refused, each as 'command reason'
local text, hash, stream, set, list = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local refused = {}

-- Returns whether an error is a refusal: NOPERM, 'ACL failure in script' of Redis 7.2 and Valkey, the last of Redis up to 7.0.
local function is_refusal(said)
  return string.find(said, 'NOPERM') or string.find(said, 'ACL') or string.find(said, "The user executing the script can't ", 1, true)
end

for _, command in ipairs({
  { 'TIME' }, { 'SET', text, 1, 'PX', 60000 }, { 'INCRBY', text, 1 }, { 'GET', text }, { 'MGET', text },
  { 'GETRANGE', text, 0, 1 },
  { 'STRLEN', text }, { 'EXISTS', text }, { 'TYPE', text }, { 'PTTL', text }, { 'PEXPIRE', text, 60000 },
  { 'EXPIRE', text, 60 }, { 'HSET', hash, 'field', 1 }, { 'HGET', hash, 'field' }, { 'HMGET', hash, 'field' },
  { 'HGETALL', hash }, { 'HLEN', hash }, { 'HINCRBY', hash, 'field', 1 }, { 'HDEL', hash, 'field' },
  { 'XADD', stream, '*', 'field', 1 }, { 'XLEN', stream }, { 'XRANGE', stream, '-', '+' },
  { 'XREVRANGE', stream, '+', '-' }, { 'XDEL', stream, '1-1' }, { 'XTRIM', stream, 'MAXLEN', 0 },
  { 'ZADD', set, 1, 'member' }, { 'ZCARD', set }, { 'ZCOUNT', set, 0, 1 }, { 'ZINCRBY', set, 1, 'member' },
  { 'ZSCORE', set, 'member' }, { 'ZMSCORE', set, 'member' }, { 'ZRANGE', set, 0, 1 }, { 'ZRANGEBYSCORE', set, 0, 1 }, { 'ZREVRANGE', set, 0, 1 },
  { 'ZRANK', set, 'member' }, { 'ZREM', set, 'member' }, { 'ZREMRANGEBYRANK', set, 0, 0 },
  { 'ZREMRANGEBYSCORE', set, 0, 0 }, { 'RPUSH', list, 1 }, { 'LRANGE', list, 0, 0 }, { 'LTRIM', list, 1, 0 },
  { 'DEL', list }, { 'UNLINK', text, hash, stream, set },
}) do
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err and is_refusal(reply.err) then
    refused[#refused + 1] = string.lower(command[1]) .. ' ' .. reply.err
  end
end
return refused
