-- Appends items to a lane of a queue, as many as there is room for.
-- KEYS[1] lane: stream
-- ARGV[1] most items that may wait, from ARGV[2] on the items
-- Result: how many were appended
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local added = 0
for at = 2, #ARGV do
  if added >= room then
    break
  end
  redis.call('XADD', KEYS[1], '*', 'w', ARGV[at])
  added = added + 1
end
return added
