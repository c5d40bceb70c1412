-- A page of the channels that have members, in their order; a watcher's first page registers its interest before.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] '1' to register `pw:<prefix>`, ARGV[4] literal prefix, ARGV[5] last channel of the page before, '' at first
-- ARGV[6] greatest number of channels
-- Result: { number of channels, channel... }; fewer than the greatest number: that was all
local prefix, after = ARGV[4], ARGV[5]
if ARGV[3] == '1' then
  redis.call('SADD', hold(node), 'pw:' .. prefix)
  redis.call('SADD', base .. 'pw:' .. prefix, node)
end
-- Names under the prefix lie between it and the same followed by `/`, the byte after the dot.
local from = after ~= '' and '(' .. after or prefix == '' and '-' or '[' .. prefix
local to = prefix == '' and '+' or '(' .. prefix .. '/'
local names = redis.call('ZRANGEBYLEX', base .. 'mc', from, to, 'LIMIT', 0, ARGV[6])
return { #names, unpack(names) }
