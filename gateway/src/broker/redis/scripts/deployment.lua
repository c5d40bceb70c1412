-- Records how the deployment is laid out, at its first boot, and gives out a node incarnation.
-- KEYS[1] deployment: hash { partitions, data_version }, KEYS[2] incarnation: counter
-- ARGV[1] partitions, ARGV[2] data version
-- Result: { incarnation, partitions, data version }; incarnation 0 if the record differs: nothing was changed
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
redis.call('HSETNX', KEYS[1], 'data_version', ARGV[2])
local partitions = redis.call('HGET', KEYS[1], 'partitions')
local version = redis.call('HGET', KEYS[1], 'data_version')
if partitions ~= ARGV[1] or version ~= ARGV[2] then
  return { 0, partitions, version }
end
-- Not behind the clock: where the counter was lost or rolled back, living nodes still use the numbers of before.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local node = math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
redis.call('SET', KEYS[2], string.format('%.0f', node))
return { node, partitions, version }
