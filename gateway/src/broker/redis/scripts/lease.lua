-- Shared by the scripts that hold something for a node; follows what defines `base` and `now`.
-- Nothing is held for a node without a lease: without one, nobody would ever clean up. Who finds none takes one for
-- long enough that the node's next heartbeat comes, finds the mark `lease` missing in `n:<node>`, and re-syncs.
local function hold(node)
  if not redis.call('ZSCORE', base .. 'leases', node) then
    redis.call('ZADD', base .. 'leases', string.format('%.0f', now + 10000), node)
  end
  return base .. 'n:' .. node
end
