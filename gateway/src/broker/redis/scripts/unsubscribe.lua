-- Withdraws a node's interest.
-- KEYS[1] meta (see interest.lua)
-- ARGV[1] base, ARGV[2] node, then the interests: `i:<channel>` or `w:<literal prefix>`
-- Result: number of interests
local base, node = ARGV[1], ARGV[2]
local interests = interests_of(base)
for at = 3, #ARGV do
  interests.touch(node, ARGV[at])
end
for at = 3, #ARGV do
  interests.withdraw(node, ARGV[at])
  redis.call('SREM', base .. 'n:' .. node, ARGV[at])
end
return #ARGV - 2
