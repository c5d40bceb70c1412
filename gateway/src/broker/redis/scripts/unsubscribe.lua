-- Withdraws a node's interest.
-- KEYS[1] meta (unused, names the slot)
-- ARGV[1] base, ARGV[2] node, then the interests: `i:<channel>` or `w:<literal prefix>`
-- Result: number of interests
local base, node = ARGV[1], ARGV[2]
for at = 3, #ARGV do
  redis.call('EXISTS', base .. ARGV[at], base .. 'n:' .. node, base .. 'prefixes')
end
for at = 3, #ARGV do
  withdraw(base, node, ARGV[at])
  redis.call('SREM', base .. 'n:' .. node, ARGV[at])
end
return #ARGV - 2
