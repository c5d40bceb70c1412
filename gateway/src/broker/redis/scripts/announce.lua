-- Keeps what a node shows of itself.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] card
-- Result: 1
redis.call('HSET', base .. 'cards', node, ARGV[3])
return 1
