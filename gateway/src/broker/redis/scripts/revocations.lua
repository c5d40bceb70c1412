-- The list of revocations, if it has changed; forgets those whose time is over.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] version that the caller knows
-- Result: { 0 } if it is still that, else { 1, version, then `u:<user>` or `t:<token id>` and `<since> <until>` of each }
local key = base .. 'revoked'
local version = redis.call('HGET', key, 'version') or '0'
if version == ARGV[3] then
  return { 0 }
end
local result, all = { 1, version }, redis.call('HGETALL', key)
for at = 1, #all, 2 do
  local till = tonumber(string.match(all[at + 1], '^%d+ (%d+)$') or '')
  if all[at] ~= 'version' then
    if not till or till <= now then
      redis.call('HDEL', key, all[at])
    else
      result[#result + 1] = all[at]
      result[#result + 1] = all[at + 1]
    end
  end
end
return result
