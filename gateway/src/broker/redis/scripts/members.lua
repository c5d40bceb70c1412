-- A page of a channel's members; a watcher's first page registers its interest before.
-- KEYS, ARGV[1], ARGV[2]: see clock.lua
-- ARGV[3] '1' to register `pi:<channel>`, ARGV[4] channel, ARGV[5] cursor of HSCAN ('0' at first)
-- ARGV[6] about how many members, 0: only count
-- Result: { number of members, next cursor ('0': that was all), then session and value of each, see presence.lua }
local channel = ARGV[4]
if ARGV[3] == '1' then
  redis.call('SADD', hold(node), 'pi:' .. channel)
  redis.call('SADD', base .. 'pi:' .. channel, node)
end
local key = base .. 'm:' .. channel
local result = { redis.call('HLEN', key), '0' }
if ARGV[6] ~= '0' then
  local page = redis.call('HSCAN', key, ARGV[5], 'COUNT', ARGV[6])
  result[2] = page[1]
  for _, item in ipairs(page[2]) do
    result[#result + 1] = item
  end
end
return result
