-- A page of the queues of a partition, in the order of their channels and groups.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] literal prefix of the channels, ARGV[4] last name of the page before, '' at first, ARGV[5] greatest number of names
-- Result: { number of names, `<channel> <group>`... }
local prefix, after = ARGV[3], ARGV[4]
local from = after ~= '' and '(' .. after or prefix == '' and '-' or '[' .. prefix
-- Names under the prefix lie between it and the same followed by `/`, the byte after the dot.
local to = prefix == '' and '+' or '(' .. prefix .. '/'
local names = redis.call('ZRANGEBYLEX', base .. 'jl', from, to, 'LIMIT', 0, ARGV[5])
return { #names, unpack(names) }
