-- Withdraws what a node that shuts down holds in a partition, a part at a time.
-- KEYS[1] meta (unused, names the slot)
-- ARGV[1] base, ARGV[2] node, ARGV[3] interests to withdraw in this call
-- Result: interests that are left; the inbox goes with the last one
local base, node = ARGV[1], ARGV[2]
local held = base .. 'n:' .. node
for _, interest in ipairs(redis.call('SPOP', held, ARGV[3])) do
  withdraw(base, node, interest)
end
local left = redis.call('SCARD', held)
if left == 0 then
  redis.call('DEL', base .. 'in:' .. node)
end
return left
