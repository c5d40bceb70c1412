-- The nodes that live, and what they show of themselves.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- Result: { count, node, card... }; a card is '' before its node announced one
local alive = redis.call('ZRANGEBYSCORE', base .. 'leases', string.format('(%.0f', now), '+inf')
local cards = redis.call('HGETALL', base .. 'cards')
local shown, result = {}, { #alive }
for at = 1, #cards, 2 do
  shown[cards[at]] = cards[at + 1]
end
for _, other in ipairs(alive) do
  result[#result + 1] = other
  result[#result + 1] = shown[other] or ''
end
-- Those whose lease is gone altogether are reaped, and come back under another name.
for other in pairs(shown) do
  if not redis.call('ZSCORE', base .. 'leases', other) then
    redis.call('HDEL', base .. 'cards', other)
  end
end
return result
