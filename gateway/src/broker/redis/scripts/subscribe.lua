-- Registers a node's interest in a channel and reads what the first subscriber missed, in one step.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] node, ARGV[4] greatest number of entries
-- ARGV[5] channel, history size ('0' none), ms to keep it, mode, at (see read_channel in history.lua)
-- Result: { now, top, what read_channel answers (nothing without history) }
redis.call('EXISTS', KEYS[1])
local interests = interests_of(base)
interests.touch(ARGV[3], 'i:' .. ARGV[5])
open_meta()
local node, limit, channel, size = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- The lease first: it is not touched above, and nothing is held without one.
hold(node)
interests.register(node, 'i:' .. channel)
if size == '0' then
  return { now, top }
end
return { now, top, read_channel(channel, size, ARGV[7], ARGV[8], ARGV[9], limit) }
