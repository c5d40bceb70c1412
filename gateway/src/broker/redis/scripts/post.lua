-- Puts a letter into inboxes.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] greatest length of an inbox, ARGV[4] letter, ARGV[5] node that it is for, '' for all that have a lease
-- Result: { count, node... } whose inbox took it
local nodes, taken = { ARGV[5] }, { 0 }
if ARGV[5] == '' then
  nodes = redis.call('ZRANGEBYSCORE', base .. 'leases', string.format('(%.0f', now), '+inf')
end
for _, to in ipairs(nodes) do
  -- While a slot migrates Redis answers TRYAGAIN or ASK here, before anything is written.
  redis.call('EXISTS', base .. 'in:' .. to)
end
local refused
for _, to in ipairs(nodes) do
  local id = redis.pcall('XADD', base .. 'in:' .. to, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], to .. '-*', 'c ', ARGV[4])
  if type(id) == 'string' then
    taken[#taken + 1] = to
  elseif id then
    refused = id
  end
end
if refused and #taken == 1 then
  return refused
end
taken[1] = #taken - 1
return taken
