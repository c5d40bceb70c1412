-- Keeps the record by which any node resumes a session, and where the session is, unless a later connection has it.
-- KEYS[1] session: hash
-- ARGV[1] record, ARGV[2] ms to keep all of it, ARGV[3] node that the session is on, ARGV[4] tenure of its connection
-- Result: { 0 } if a later connection has the session, and nothing was changed; else { 1, node of the connection that had
--   it before, '' if there was none }
local found = redis.call('HMGET', KEYS[1], 'tenure', 'node', 'former')
local held, node, former = tonumber(found[1] or '0'), found[2] or '', found[3] or ''
local tenure = tonumber(ARGV[4])
-- Two nodes have one tenure only if Redis lost the number that it gave out: the first one to save has it.
if held > tenure or (held == tenure and node ~= ARGV[3]) then
  return { 0 }
end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'node', ARGV[3], 'tenure', ARGV[4])
if held < tenure and node ~= '' then
  former = node
  redis.call('HSET', KEYS[1], 'former', former)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 1, former }
