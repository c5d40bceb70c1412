-- Tries, on a key of its own, every command that a node needs for the keys under its prefix, and removes the key. What a
-- command answers does not matter, nor that most of them do not fit the key: rights are looked at before that.
-- KEYS[1] a key that nothing else uses
-- Result: { number of commands that the user may not run, their names... }
local key, denied = KEYS[1], {}
local function may(...)
  local answer = redis.pcall(...)
  local error = type(answer) == 'table' and answer.err
  -- Redis 7.2 and Valkey say the first, Redis 7.0 the second.
  if error and (string.find(error, 'ACL failure in script', 1, true)
      or string.find(error, 'user executing the script', 1, true)) then
    local name, second = ...
    local container = name == 'XGROUP' or name == 'XINFO'
    denied[#denied + 1] = string.lower(container and name .. '|' .. second or name)
    return false
  end
  return true
end

-- Nothing is written that could not be removed.
local removes = may('DEL', key)
local expires = may('PEXPIRE', key, '1000')
if removes or expires then
  may('HSET', key, 'f', 'v')
  if expires then
    may('PEXPIRE', key, '1000')
  end
end
for _, command in ipairs({
  { 'EXISTS', key }, { 'GET', key }, { 'HDEL', key, 'none' }, { 'HGET', key, 'f' }, { 'HGETALL', key }, { 'HLEN', key },
  { 'HMGET', key, 'f' }, { 'HSCAN', key, '0' }, { 'SCARD', key }, { 'SRANDMEMBER', key }, { 'SREM', key, 'm' },
  { 'SSCAN', key, '0' }, { 'SUNION', key }, { 'TIME' }, { 'XACK', key, 'g', '0-1' }, { 'XDEL', key, '0-1' },
  { 'XAUTOCLAIM', key, 'g', 'c', '1000', '0' }, { 'XGROUP', 'DESTROY', key, 'g' }, { 'XGROUP', 'DELCONSUMER', key, 'g', 'c' },
  { 'XGROUP', 'CREATE', key, 'g', '$' }, { 'XINFO', 'CONSUMERS', key, 'g' }, { 'XINFO', 'GROUPS', key },
  { 'XINFO', 'STREAM', key }, { 'XLEN', key }, { 'XRANGE', key, '-', '+', 'COUNT', '1' },
  { 'XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', '1', 'STREAMS', key, '>' }, { 'XREVRANGE', key, '+', '-', 'COUNT', '1' },
  { 'XSETID', key, '1-1' }, { 'XTRIM', key, 'MAXLEN', '1' }, { 'ZCARD', key }, { 'ZRANGEBYLEX', key, '-', '+' },
  { 'ZRANGEBYSCORE', key, '0', '1' }, { 'ZREM', key, 'm' }, { 'ZSCORE', key, 'm' },
}) do
  may(unpack(command))
end
if removes or expires then
  -- They do not fit the key, which holds a hash.
  may('HSETNX', key, 'g', 'v')
  may('SADD', key, 'm')
  may('XADD', key, '*', 'f', 'v')
  may('ZADD', key, '1', 'm')
  may('SET', key, 'v', 'PX', '1000', 'XX')
end
if removes then
  redis.call('DEL', key)
end
return { #denied, unpack(denied) }
