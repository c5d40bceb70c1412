-- Takes a node's lease, makes its inbox if it is not there, and gives the node a fresh consumer group at its cursor.
-- Destroying the former groups unblocks and fails whoever still reads with them.
-- KEYS[1] inbox: stream; entry IDs are `<node>-<sequence>`, sequences start at 1
-- ARGV[1] node, ARGV[2] generation of the group, ARGV[3] sequence read last, ARGV[4] ms to keep the inbox
-- ARGV[5] base, ARGV[6] lease in ms, ARGV[7] '1' if the node wants to know which channels are occupied (interest.lua)
-- Result: { 1 if entries after the cursor may be missing (made anew, or behind the cursor), or if something that the
--   node holds was taken away; else 0 }
local key, node, group, cursor = KEYS[1], ARGV[1], 'g' .. ARGV[2], ARGV[3]
local at = node .. '-' .. cursor
local clock = redis.call('TIME')
local expiry = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[6])
redis.call('EXISTS', key, ARGV[5] .. 'leases', ARGV[5] .. 'n:' .. node)
if ARGV[7] == '1' then
  redis.call('EXISTS', ARGV[5] .. 'meta')
  redis.call('HSET', ARGV[5] .. 'meta', 'occupancy', string.format('%.0f', expiry + 2 * tonumber(ARGV[6])))
end
redis.call('ZADD', ARGV[5] .. 'leases', string.format('%.0f', expiry), node)
local fresh = redis.call('SADD', ARGV[5] .. 'n:' .. node, 'lease')
if redis.call('EXISTS', key) == 0 then
  redis.call('XGROUP', 'CREATE', key, group, at, 'MKSTREAM', 'ENTRIESREAD', cursor)
  redis.call('XSETID', key, at, 'ENTRIESADDED', cursor, 'MAXDELETEDID', '0-0')
  fresh = 1
else
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    -- Rolled back by a failover: entries would get sequences that were read already.
    if info[i] == 'last-generated-id' and tonumber(string.match(info[i + 1], '%d+$')) < tonumber(cursor) then
      redis.call('XSETID', key, at, 'ENTRIESADDED', cursor, 'MAXDELETEDID', '0-0')
      fresh = 1
    end
  end
  for _, other in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    redis.call('XGROUP', 'DESTROY', key, other[2])
  end
  redis.call('XGROUP', 'CREATE', key, group, at, 'ENTRIESREAD', cursor)
end
redis.call('PEXPIRE', key, ARGV[4])
return { fresh }
