-- Keeps a node's inbox and drops what was consumed.
-- KEYS[1] inbox
-- ARGV[1] node, ARGV[2] sequence read last, ARGV[3] ms to keep the inbox
-- Result: { -1 } if the inbox is gone, else { entries not yet read }
if redis.call('PEXPIRE', KEYS[1], ARGV[3]) == 0 then
  return { -1 }
end
redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1] .. '-' .. string.format('%.0f', tonumber(ARGV[2]) + 1))
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    return { math.max(0, tonumber(string.match(info[i + 1], '%d+$')) - tonumber(ARGV[2])) }
  end
end
return { 0 }
