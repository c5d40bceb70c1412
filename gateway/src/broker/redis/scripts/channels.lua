-- A page of the catalogue, in its order: the channels that have a history.
-- KEYS[1] meta (unused, names the slot)
-- ARGV[1] base: what every key of the partition starts with
-- ARGV[2] literal prefix, ARGV[3] last name of the page before, '' at first
-- ARGV[4] greatest number of names to look at
-- Result: { 1 if there are more names, else 0, last name that was looked at or '', channel... }
local base, prefix, after, look = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Names under the prefix lie between it and the same followed by `/`, the byte after the dot.
local from = after ~= '' and '(' .. after or prefix == '' and '-' or '[' .. prefix
local to = prefix == '' and '+' or '(' .. prefix .. '/'
local names = redis.call('ZRANGEBYLEX', base .. 'chans', from, to, 'LIMIT', 0, look)
local result = { #names == look and 1 or 0, names[#names] or '' }
for _, name in ipairs(names) do
  if redis.call('EXISTS', base .. 'h:' .. name) == 1 then
    result[#result + 1] = name
  end
end
return result
