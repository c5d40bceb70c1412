-- A page of what Redis thinks that a node holds.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] cursor of SSCAN ('0' at first), ARGV[4] about how many things
-- Result: { number of things, next cursor ('0': that was all), thing... }
local page = redis.call('SSCAN', base .. 'n:' .. node, ARGV[3], 'COUNT', ARGV[4])
return { #page[2], page[1], unpack(page[2]) }
