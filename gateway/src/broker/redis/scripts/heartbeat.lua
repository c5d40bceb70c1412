-- Renews a node's lease and, if nobody has done so just now, cleans up after one node whose lease has run out.
-- KEYS and ARGV[1] to ARGV[3]: see presence.lua
-- ARGV[4] lease, ARGV[5] shortest time between two runs of the reaper, ARGV[6] time without any run after which it was
--   Redis that was away; all in ms
-- ARGV[7] greatest number of things to clean up, ARGV[8] '1' to go on at once with what the call before left
-- ARGV[9] '1' in a Redis Cluster, whose slots may migrate, else '0'
-- ARGV[10] '1' if the node wants to know which channels are occupied (interest.lua)
-- Result: { 1 if something that this node holds was taken away (or never was there), 1 if more is to be cleaned up,
--   nodes ended, members removed, 1 if leases were extended }; then, if there is one of both, the error of cleaning up or '',
--   and how many items there was no room for in the queue of occupancy since somebody was told
local lease, every, away, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
-- Names of the catalogue in one run.
local SWEPT = 20
local leases = base .. 'leases'
local function stamp(time)
  return string.format('%.0f', time)
end

local function text_of(err)
  return type(err) == 'table' and err.err or tostring(err)
end

redis.call('EXISTS', KEYS[1], leases, base .. 'n:' .. node)
local fresh = redis.call('SADD', base .. 'n:' .. node, 'lease')
redis.call('ZADD', leases, stamp(now + lease), node)
local lost = 0
if ARGV[10] == '1' then
  redis.call('HSET', KEYS[1], 'occupancy', stamp(now + 3 * lease))
  lost = tonumber(redis.call('HGET', KEYS[1], 'occupancy_lost') or '0')
  if lost > 0 then
    redis.call('HDEL', KEYS[1], 'occupancy_lost')
  end
end
local function answer(more, nodes, members, extended, err)
  if err or lost > 0 then
    return { fresh, more, nodes, members, extended, err or '', lost }
  end
  return { fresh, more, nodes, members, extended }
end

local reaped = tonumber(redis.call('HGET', KEYS[1], 'reaped') or '')
local since = reaped and now - reaped
local at_work = since and since >= 0 and since <= away
if at_work and since < every and ARGV[8] ~= '1' then
  return answer(0, 0, 0, 0)
end
-- While a slot migrates a node whose `n:` has gone ahead cannot renew. Then nobody may reap: who did would show that
-- leases could be renewed, and take that node for dead as soon as the slot has arrived. An error would be no answer, and
-- this node would never be told that its mark was missing.
if ARGV[9] == '1' then
  local touched = {}
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '+inf', 'LIMIT', 0, 1000)) do
    touched[#touched + 1] = base .. 'n:' .. other
  end
  if type(redis.pcall('EXISTS', unpack(touched))) == 'table' then
    return answer(0, 0, 0, 0)
  end
end
redis.call('HSET', KEYS[1], 'reaped', stamp(now))
if not at_work then
  -- Nobody could renew, or the clock is another one: everybody gets a new start.
  local until_then = stamp(now + math.max(lease, 3000))
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. until_then)) do
    redis.call('ZADD', leases, until_then, other)
  end
  return answer(0, 0, 0, 1)
end
local dead = redis.call('ZRANGEBYSCORE', leases, '-inf', stamp(now), 'LIMIT', 0, 2)
if not dead[1] then
  local swept, err = pcall(sweep, SWEPT)
  return answer(0, 0, 0, 0, not swept and text_of(err) or nil)
end
-- What fails goes on at a later turn.
local cleaned, left, removed = pcall(clean, dead[1], most)
if not cleaned then
  return answer(0, 0, 0, 0, text_of(left))
end
return answer((left > 0 or dead[2]) and 1 or 0, left == 0 and 1 or 0, removed, 0)
